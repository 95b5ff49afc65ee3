/** SoC, voltage, current and hottest temperature over the last minutes or hours; history first, then live. */

import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { el, panel, setAttribute, setText } from "./dom.ts";
import { type Sample, hottest_c, seconds, STALE_AFTER_S } from "./records.ts";
import { Series } from "./series.ts";
import { FIELDS } from "./words.ts";

const CHARTS = [
  { field: "soc_bms", label: "State of charge", least: 2, color: "--line-soc" },
  { field: "pack_v", label: "Voltage", least: 4, color: "--line-volts" },
  { field: "current_a", label: "Current (charging > 0)", least: 20, color: "--line-amps" },
  { field: "temp_c", label: "Hottest temperature", least: 4, color: "--line-temp" },
] as const;
export const CHART_FIELDS = CHARTS.map((chart) => chart.field);

export const RANGES = [
  { label: "10 min", span_s: 600 },
  { label: "1 h", span_s: 3600, step_s: 5 },
  { label: "24 h", span_s: 86_400, step_s: 120 },
] as const;
export type Range = (typeof RANGES)[number];

const css = (name: string): string => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const clockWithSeconds = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });

function chartValues(sample: Sample): (number | null)[] {
  return CHARTS.map(({ field }) => {
    if (field === "temp_c") return Array.isArray(sample.temp_c) ? hottest_c(sample) : sample.temp_c ?? null;
    const value = sample[field];
    return value == null ? null : value * (FIELDS[field].scale ?? 1);
  });
}

/** A range of y around [low, high], at least `least` wide, so that noise does not look like a storm. */
export function axisRange(low: number | null, high: number | null, least: number): [number, number] {
  if (low === null || high === null) return [0, least];
  const pad = Math.max((least - (high - low)) / 2, (high - low) * 0.08);
  return [low - pad, high + pad];
}

export class Charts {
  readonly root: HTMLElement;
  readonly #plots: uPlot[] = [];
  readonly #now: HTMLElement[] = [];
  readonly #buttons = new Map<Range, HTMLButtonElement>();
  readonly #resize: ResizeObserver;
  readonly #grid = el("div", { class: "charts" });
  readonly #picked: (range: Range) => void;
  #series = new Series(CHARTS.length);
  #window: [number, number] = [0, 1];
  range: Range = RANGES[0];

  constructor(picked: (range: Range) => void) {
    this.#picked = picked;
    const ranges = el("div", { class: "chips", role: "group", "aria-label": "Time shown" });
    for (const range of RANGES) {
      const pressed = String(range === this.range);
      const button = el("button", { type: "button", class: "chip", "aria-pressed": pressed }, range.label);
      button.addEventListener("click", () => this.#pick(range));
      this.#buttons.set(range, button);
      ranges.append(button);
    }
    this.root = panel("charts", "Over time", ranges, this.#grid);
    CHARTS.forEach((_, which) => this.#plot(which));
    this.#resize = new ResizeObserver((entries) => {
      for (const { target, contentRect } of entries) {
        const plot = this.#plots.find((one) => target.contains(one.root));
        const [width, height] = [Math.floor(contentRect.width), Math.floor(contentRect.height)];
        if (plot && width && height) plot.setSize({ width, height });
      }
    });
    for (const plot of this.#plots) this.#resize.observe(plot.root.parentElement!);
  }

  close(): void {
    this.#resize.disconnect();
    for (const plot of this.#plots) plot.destroy();
  }

  #pick(range: Range): void {
    this.range = range;
    for (const [one, button] of this.#buttons) setAttribute(button, "aria-pressed", String(one === range));
    this.#picked(range);
  }

  #plot(which: number): void {
    const { field, label, least, color } = CHARTS[which]!;
    const now = el("span", { class: "chart-now" });
    const holder = el("div", { class: "chart-plot" });
    this.#grid.append(el("figure", { class: "chart" }, el("figcaption", {}, label, now), holder));
    this.#now.push(now);
    const axis: uPlot.Axis = {
      stroke: () => css("--muted"),
      grid: { stroke: () => css("--grid"), width: 1 },
      ticks: { show: false },
      font: "11px system-ui, sans-serif",
    };
    const line: uPlot.Series = { stroke: () => css(color), width: 1.5, points: { show: false }, spanGaps: false };
    if (field === "current_a") Object.assign(line, { fill: () => css("--fill-amps"), fillTo: 0 });
    const options: uPlot.Options = {
      width: 300, // until it is laid out
      height: 150,
      legend: { show: false },
      padding: [8, 8, 0, 0],
      cursor: { y: false, sync: { key: "pack" }, drag: { x: false, y: false }, points: { size: 7 } },
      scales: {
        x: { time: true, range: () => this.#window },
        y: { range: (_, low, high) => axisRange(low, high, least) },
      },
      axes: [
        { ...axis, size: 26, space: 70, values: (_, at) => at.map((t_s) => clock.format(t_s * 1000)) },
        { ...axis, size: 46, space: 34, values: (_, at) => at.map((value) => `${value}`.replace("-", "−")) },
      ],
      series: [{}, line],
      hooks: { setCursor: [() => this.#say(which)] },
    };
    this.#plots.push(new uPlot(options, [[], []], holder));
  }

  /** The value under the cursor with its time, else the newest one. */
  #say(which: number): void {
    const plot = this.#plots[which];
    if (!plot) return;
    const { unit, digits } = FIELDS[CHARTS[which]!.field];
    const under = plot.cursor.idx;
    const index = under ?? plot.data[0].length - 1;
    const value = plot.data[1]?.[index];
    const text = value == null ? "–" : `${value.toFixed(digits).replace("-", "−")} ${unit}`;
    const time = under == null ? "" : `${clockWithSeconds.format(plot.data[0][index]! * 1000)}  `;
    setText(this.#now[which]!, time + text);
  }

  /** Begins anew with a stretch of history. */
  seed(samples: readonly Sample[]): void {
    this.#series = new Series(CHARTS.length);
    for (const sample of samples) this.add(sample);
  }

  add(sample: Sample): void {
    const t_s = seconds(sample.t);
    if (t_s !== null) this.#series.add(t_s, chartValues(sample));
  }

  /** Moves the window on; a silent pack keeps its last minutes in view. */
  draw(now_s: number): void {
    const last_s = this.#series.last_s ?? now_s;
    const end_s = Math.abs(now_s - last_s) > STALE_AFTER_S ? last_s : now_s;
    this.#window = [end_s - this.range.span_s, end_s];
    this.#series.trim(this.#window[0]);
    const step_s = "step_s" in this.range ? this.range.step_s : 1;
    const [t_s, ...columns] = this.#series.aligned(Math.max(STALE_AFTER_S, 3 * step_s));
    this.#plots.forEach((plot, which) => {
      plot.setData([t_s, columns[which]!]);
      this.#say(which);
    });
    setAttribute(this.root, "data-empty", t_s.length === 0);
  }
}

