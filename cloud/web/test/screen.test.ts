import assert from "node:assert/strict";
import { test } from "node:test";
import { linkWords } from "../src/connection.ts";
import { EVERYTHING, addressOf, choiceOf } from "../src/fleet.ts";
import { packWords } from "../src/fleet_row.ts";
import { type Pack, isSimulated } from "../src/records.ts";
import { Series } from "../src/series.ts";
import { Trend, sparkPath } from "../src/sparkline.ts";
import { codeWords, decimal, fieldText, flowWords, missing, plain, spanWords } from "../src/words.ts";

const NOW_S = 1_800_000_000;
const PACK: Pack = {
  pack_id: "B1", device: "edge-01", chemistry: "nmc", series: 96, parallel: 1, nominal_ah: 60, nominal_v: 350,
  vehicle: "CAR_B1", fleet: "north", tags: ["taxi"], t: null, status: "good", latest: null, estimate: null, model: null, stale_after_s: 15, desired: null,
};

test("a missing number is said in words, never as 0", () => {
  const sample = { pack_id: "P", pack_v: null, quality: { "cell_v[12]": "out_of_range", temp_c: "stale" } };
  assert.equal(fieldText("pack_v", sample.pack_v), null);
  assert.equal(missing(sample, "pack_v"), "absent");
  assert.equal(missing(sample, "cell_v[12]"), "out of range");
  assert.equal(missing(sample, "temp_c[3]"), "stale");
  assert.equal(fieldText("current_a", 0), "0.0");
});

test("a pack is told with its tags; that it is simulated is a label of its own", () => {
  assert.equal(packWords(PACK), "NMC · 96s1p · 60 Ah · CAR_B1 · north · taxi");
  const simulated = { ...PACK, vehicle: null, fleet: null, tags: ["simulated"] };
  assert.equal(packWords(simulated), "NMC · 96s1p · 60 Ah");
  assert.ok(isSimulated(simulated) && isSimulated({ ...PACK, tags: { origin: "simulated" } }) && !isSimulated(PACK));
  assert.equal(packWords({ ...simulated, chemistry: null, series: null, nominal_ah: null, tags: {} }), "");
});

test("percent exists on the screen only", () => assert.equal(fieldText("soc_bms", 0.634), "63.4"));

test("numbers carry a true minus, but not on a rounded zero", () => {
  assert.equal(decimal(-12.34, 1), "−12.3");
  assert.equal(decimal(-0.04, 1), "0.0");
  assert.equal(decimal(41235.42, 1), "41\u2009235.4");
  assert.equal(plain(0.0512), "0.0512");
  assert.equal(plain(44.12), "44.12");
  assert.equal(plain(1200.5), "1200.5");
});

test("the current's way is said in words", () => {
  assert.deepEqual([12, -12, 0, null].map(flowWords), ["charging", "discharging", "at rest", ""]);
});

test("codes and spans of time read as words", () => {
  assert.equal(codeWords("cell_over_voltage"), "Cell over-voltage");
  assert.equal(codeWords("discharge_under_temp"), "Discharge under-temperature");
  assert.deepEqual([2, 300, 7200, 200_000].map(spanWords), ["2 s", "5 min", "2 h", "2 days"]);
});

test("an open stream without data for 15 s is not called live", () => {
  assert.equal(linkWords("live", 3).text, "Live");
  assert.equal(linkWords("live", 40).text, "Connected, last data 40 s ago");
  assert.equal(linkWords("live", 70, 180).text, "Live"); // a device in economy mode
  assert.equal(linkWords("offline", 40).look, "offline");
});

test("the address remembers the choice, and what it does not know is left out", () => {
  const choice = { search: "taxi north", show: "critical", order: "rul", page: 2 } as const;
  assert.equal(addressOf(choice), "#/?search=taxi+north&show=critical&order=rul&page=3");
  assert.deepEqual(choiceOf(addressOf(choice)), choice);
  assert.equal(addressOf(EVERYTHING), "#/");
  for (const odd of ["", "#/", "#/?show=toString&order=nothing&page=-1", "#/?page=1e9", "#/pack/P?show=critical"]) {
    assert.deepEqual(choiceOf(odd), EVERYTHING);
  }
});

test("a series keeps its order, replaces the same instant and shows a pause as a hole", () => {
  const series = new Series(1);
  for (const [t_s, value] of [[10, 1], [12, 3], [11, 2], [12, 4], [60, 5]] as const) series.add(t_s, [value]);
  assert.deepEqual(series.aligned(15), [[10, 11, 12, 36, 60], [1, 2, 4, null, 5]]);
  series.trim(12);
  assert.deepEqual(series.aligned(15), [[12, 36, 60], [4, null, 5]]);
});

test("a sparkline breaks where nothing came", () => {
  const trend = new Trend();
  trend.add(NOW_S, 10);
  trend.add(NOW_S - 20, -10);
  const values = trend.values(NOW_S);
  assert.equal(values.length, 60);
  assert.deepEqual(values.slice(-5), [-10, null, null, null, 10]);
  assert.equal(sparkPath(values).path.match(/M/g)?.length, 2);
});
