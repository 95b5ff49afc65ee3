import assert from "node:assert/strict";
import { test } from "node:test";
import { place, riskBand, scaleFor } from "../src/gauge.ts";
import {
  isOnTheWay, lifeWords, modelSentence, percentText, reasonSentence, shortReason, stepLook,
} from "../src/prediction_words.ts";
import { type Estimate, type ModelReport, type Pack, isNewer, prediction } from "../src/records.ts";

const at = (s: number): string => new Date(1_800_000_000_000 + s * 1000).toISOString();
const SAID: Estimate = {
  t: at(0), rul_cycles: 480.4, rul_cycles_lo: 400, rul_cycles_hi: 600, failure_probability: 0.35, in_domain: true,
  model_id: "base-3", reason: null,
};
const pack = (t: string | null, estimate: Estimate | null): Pack => ({
  pack_id: "P", device: null, chemistry: null, series: null, parallel: null, nominal_ah: null, nominal_v: null,
  vehicle: null, fleet: null, tags: null, t, status: null, latest: null, estimate, model: null, stale_after_s: 15, desired: null,
});
const report = (step: ModelReport["step"], reason: string | null = null): ModelReport => ({
  model_id: "base-4", counter: 4, step, reason, t: at(0),
});

test("a prediction holds for some minutes of samples, then it is stale and has no number", () => {
  assert.deepEqual(prediction(pack(at(299), SAID)), SAID);
  const stale = prediction(pack(at(301), SAID));
  assert.equal(stale.reason, "stale");
  assert.deepEqual([stale.rul_cycles, stale.failure_probability, stale.in_domain], [null, null, null]);
  assert.equal(stale.model_id, "base-3");
  assert.equal(prediction(pack(null, SAID)).rul_cycles, 480.4); // no sample yet: nothing says that it is old
});

test("without an answer there is always a reason", () => {
  assert.equal(prediction(pack(at(0), null)).reason, "no_model");
  assert.equal(prediction(pack(at(0), { ...SAID, rul_cycles: null, reason: "chemistry" })).reason, "chemistry");
  assert.match(reasonSentence("chemistry"), /not made for this pack's chemistry/);
  assert.equal(reasonSentence("some_new_code"), "The car gives a reason: some new code.");
  assert.equal(shortReason("some_new_code"), "some new code");
  assert.equal(reasonSentence(null), "");
});

test("an estimate of a backlog, or without a time, is not newer", () => {
  assert.ok(isNewer({ t: at(1) }, SAID));
  assert.ok(!isNewer({ t: at(0) }, SAID) && !isNewer({ t: null }, SAID) && !isNewer({}, null));
  assert.ok(isNewer({ t: at(0) }, null));
});

test("where a model stands is said in words, with the reason of a refusal and what goes on", () => {
  assert.equal(modelSentence(report("proven"), "base-4", "base-4"), "base-4 runs and has proven itself.");
  assert.equal(
    modelSentence(report("refused", "signature"), "base-3", "base-4"),
    "base-4 was refused: its signature is not valid. base-3 goes on.",
  );
  assert.equal(modelSentence(report("rolled_back", "new_reason"), null, null), "base-4 was taken back: new reason.");
  assert.equal(modelSentence(null, null, null), "The car has reported no model yet.");
  assert.equal(
    modelSentence(report("proven"), "base-4", "base-5"),
    "base-4 runs and has proven itself. base-5 is assigned; the car has not said anything of it yet.",
  );
  assert.deepEqual((["seen", "activated", "proven", "refused", "rolled_back"] as const).map((s) => isOnTheWay(report(s))),
    [true, true, false, false, false]);
  assert.deepEqual([stepLook(report("proven")), stepLook(report("seen")), stepLook(null)], ["good", null, null]);
});

test("a probability is never told as 0 or 100 percent that it is not", () => {
  assert.deepEqual([0, 0.0001, 0.0234, 0.5, 0.99999, 1].map(percentText),
    ["0.0", "<\u20090.1", "2.3", "50.0", ">\u200999.9", "100.0"]);
  assert.equal(percentText(null), null);
});

test("the gauge holds the whole interval and clips what lies beyond", () => {
  assert.equal(scaleFor(SAID), 1000);
  assert.equal(scaleFor({ ...SAID, rul_cycles_hi: 1480 }), 2000);
  assert.deepEqual([place(500, 2000), place(5000, 2000), place(-1, 2000)], [25, 100, 0]);
  assert.equal(lifeWords(SAID), "480 cycles, 90 % between 400 and 600");
  assert.deepEqual([0.29, 0.3, 0.6, 0.61].map(riskBand), ["good", "warning", "warning", "critical"]);
});
