/** A small line of the last minutes: values go into time buckets, the line breaks where nothing came. */

import { setAttribute, svg } from "./dom.ts";

export const SPARK_SPAN_S = 300;
export const SPARK_STEP_S = 5;
const BUCKETS = SPARK_SPAN_S / SPARK_STEP_S;
const WIDTH = BUCKETS - 1;
const HEIGHT = 24;

export class Trend {
  readonly #buckets = new Map<number, { sum: number; count: number }>();

  add(t_s: number, value: number): void {
    const key = Math.floor(t_s / SPARK_STEP_S);
    const bucket = this.#buckets.get(key) ?? { sum: 0, count: 0 };
    bucket.sum += value;
    bucket.count += 1;
    this.#buckets.set(key, bucket);
    if (this.#buckets.size > 2 * BUCKETS) {
      for (const old of this.#buckets.keys()) if (old <= key - BUCKETS) this.#buckets.delete(old);
    }
  }

  /** Means of the last buckets up to `end_s`, oldest first; null where nothing came. */
  values(end_s: number): (number | null)[] {
    const last = Math.floor(end_s / SPARK_STEP_S);
    return Array.from({ length: BUCKETS }, (_, index) => {
      const bucket = this.#buckets.get(last - BUCKETS + 1 + index);
      return bucket ? bucket.sum / bucket.count : null;
    });
  }
}

/** Less than this from end to end is rest: the noise of a parked car fills no sparkline. */
const LEAST_SPAN = 20;

/** An SVG path through the known values and the height of zero, both in 0..HEIGHT; zero always lies inside. */
export function sparkPath(values: readonly (number | null)[]): { path: string; zero: number } {
  const known = values.filter((value) => value !== null);
  let low = Math.min(0, ...known);
  let span = Math.max(0, ...known) - low;
  if (span < LEAST_SPAN) {
    low -= (LEAST_SPAN - span) / 2;
    span = LEAST_SPAN;
  }
  const y = (value: number): number => HEIGHT - 1 - ((value - low) / span) * (HEIGHT - 2);
  let path = "";
  let pen = "M";
  values.forEach((value, x) => {
    if (value !== null) path += `${pen}${x} ${y(value).toFixed(1)}`;
    pen = value === null ? "M" : "L";
  });
  return { path, zero: y(0) };
}

export class Sparkline {
  readonly root: SVGElement;
  readonly #line = svg("path", { class: "spark-line" });
  readonly #zero = svg("line", { class: "spark-zero", x1: "0", x2: String(WIDTH) });

  constructor(label: string) {
    const box = { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none" };
    this.root = svg("svg", { class: "spark", role: "img", "aria-label": label, ...box }, this.#zero, this.#line);
  }

  show(trend: Trend, end_s: number): void {
    const { path, zero } = sparkPath(trend.values(end_s));
    setAttribute(this.#line, "d", path);
    setAttribute(this.#zero, "y1", zero.toFixed(1));
    setAttribute(this.#zero, "y2", zero.toFixed(1));
  }
}
