import assert from "node:assert/strict";
import { test } from "node:test";
import { deviationLevel, outlierWords } from "../src/cells.ts";
import { type Pack, balancingCells, cellFigures, hottest_c, power_kw, spread_mv, statusOf } from "../src/records.ts";

const pack = (status: Pack["status"], alarms: string[]): Pack => ({
  pack_id: "P", device: null, chemistry: null, series: null, parallel: null, nominal_ah: null, nominal_v: null,
  vehicle: null, fleet: null, tags: null, t: null, status, latest: { pack_id: "P", alarms },
  estimate: null, model: null, stale_after_s: 15, desired: null,
});

test("a cell that is not measured takes no part in the figures", () => {
  const figures = cellFigures([3.7, null, 3.71, 3.76, 3.7])!;
  assert.equal(figures.max, 3);
  assert.equal(figures.min, 0);
  assert.equal(figures.deviation_mv[1], null);
  assert.ok(Math.abs(figures.median_v - 3.705) < 1e-9);
  assert.equal(cellFigures([null, null]), null);
});

test("50 mV above the median is the strongest colour and is said in words", () => {
  const cells = Array.from({ length: 96 }, () => 3.7);
  cells[17] = 3.75;
  const figures = cellFigures(cells)!;
  assert.equal(deviationLevel(figures.deviation_mv[17]!), 4);
  assert.equal(outlierWords(figures), "Cell 17 is 50 mV above the median.");
});

test("the colour steps are the same on both sides, and a step begins at its limit", () => {
  assert.deepEqual([0, 4.9, 5, 10, 20, 35, 400].map(deviationLevel), [0, 0, 1, 2, 3, 4, 4]);
  assert.deepEqual([-4.9, -5, -34.9, -35].map(deviationLevel), [0, -1, -3, -4]);
  assert.equal(deviationLevel((3.705 - 3.7) * 1000), 1);
});

test("figures of what is absent are null, not 0", () => {
  const sample = { pack_id: "P", pack_v: null, current_a: 3, cell_v: [], temp_c: [null] };
  assert.equal(hottest_c(sample), null);
  assert.equal(spread_mv(sample), null);
  assert.equal(power_kw(sample), null);
});

test("balancing bits are read beyond 53 of them", () => {
  assert.deepEqual([...balancingCells("0x8000000000000000000000009")], [0, 3, 99]);
  assert.deepEqual([...balancingCells(5)], [0, 2]);
  assert.deepEqual([...balancingCells(null)], []);
});

test("an alarm makes the status worse, never better", () => {
  assert.equal(statusOf(pack("good", [])), "good");
  assert.equal(statusOf(pack("good", ["cell_imbalance:warning"])), "warning");
  assert.equal(statusOf(pack("critical", ["cell_imbalance:warning"])), "critical");
  assert.equal(statusOf(pack(null, ["short_circuit"])), "critical");
  assert.equal(statusOf(pack(null, [])), null);
});
