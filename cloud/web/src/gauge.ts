/** Remaining life on a line: bands below, the interval as a bar, the prediction as a mark. */

import { el, setAttribute, setText } from "./dom.ts";
import { lifeWords } from "./prediction_words.ts";
import type { Estimate } from "./records.ts";

/** The page's default bands of remaining life; colour only, the server judges. */
const LIMITS = { critical: 100, warning: 500 } as const;
const SCALES = [1000, 1500, 2000, 3000, 4000, 6000, 10_000, 20_000, 50_000, 100_000];
/** In lists all packs share one scale, so that they can be compared; what is longer ends at its edge. */
export const LIST_SCALE = 2000;

/** A round number of cycles beyond the interval. */
export function scaleFor({ rul_cycles, rul_cycles_hi }: Estimate): number {
  const most = Math.max(rul_cycles ?? 0, rul_cycles_hi ?? 0) * 1.04;
  return SCALES.find((scale) => scale >= most) ?? most;
}

/** Where a number of cycles lies, 0..100 %. */
export function place(cycles: number, scale: number): number {
  return Math.min(100, Math.max(0, (cycles / scale) * 100));
}

const percent = (share: number): string => `${share.toFixed(2)}%`;

export class Gauge {
  readonly root: HTMLElement;
  readonly #zones = [el("i", { class: "zone zone-critical" }), el("i", { class: "zone zone-warning" })];
  readonly #interval = el("i", { class: "interval" });
  readonly #mark = el("i", { class: "mark" });
  readonly #ticks: HTMLElement[];
  readonly #scale: number | null;

  /** `scale` null: it fits the prediction and is labelled; else a fixed one for lists. */
  constructor(scale: number | null) {
    this.#scale = scale;
    const track = el("span", { class: "track" }, ...this.#zones, this.#interval, this.#mark);
    this.#ticks = scale === null ? [0, LIMITS.critical, LIMITS.warning, 0].map(() => el("span", { class: "tick" })) : [];
    const ticks = this.#ticks.length ? el("span", { class: "ticks", "aria-hidden": "true" }, ...this.#ticks) : null;
    this.root = el("span", { class: "gauge", role: "img" }, track, ticks);
  }

  show(told: Estimate): void {
    const { rul_cycles, rul_cycles_lo, rul_cycles_hi } = told;
    setAttribute(this.root, "data-missing", rul_cycles === null);
    setAttribute(this.root, "aria-label", lifeWords(told));
    if (rul_cycles === null) return;
    const scale = this.#scale ?? scaleFor(told);
    const [low, high] = [place(rul_cycles_lo ?? rul_cycles, scale), place(rul_cycles_hi ?? rul_cycles, scale)];
    this.#zones[0]!.style.width = percent(place(LIMITS.critical, scale));
    this.#zones[1]!.style.width = percent(place(LIMITS.warning, scale));
    this.#interval.style.left = percent(low);
    this.#interval.style.width = percent(Math.max(high - low, 0.6));
    this.#mark.style.left = percent(place(rul_cycles, scale));
    [0, LIMITS.critical, LIMITS.warning, scale].forEach((cycles, which) => {
      const tick = this.#ticks[which];
      if (!tick) return;
      setText(tick, which === 3 ? `${cycles} cycles` : String(cycles));
      tick.style.left = percent(place(cycles, scale));
    });
  }
}

/** good, warning or critical of a failure probability, by the page's default bands; colour only. */
export function riskBand(probability: number): "good" | "warning" | "critical" {
  return probability > 0.6 ? "critical" : probability >= 0.3 ? "warning" : "good";
}
