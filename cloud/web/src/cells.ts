/** All cells as a heat map: colour says how far a cell lies from the median, text says what it measures. */

import { el, panel, setAttribute, setText } from "./dom.ts";
import { type CellFigures, type Sample, balancingCells, cellFigures } from "./records.ts";
import { decimal, missing } from "./words.ts";

/** A deviation from the median becomes a colour step: beyond 5, 10, 20 and 35 mV. */
const LEVELS_MV = [5, 10, 20, 35];
const OUTLIER_LEVEL = 4;
const OUTLIERS_NAMED = 3;

/** -4..4: how far below or above the median, in colour steps. */
export function deviationLevel(deviation_mv: number): number {
  // Millivolts are whole numbers in truth; the rounding takes away what floating point added.
  const size_mv = Math.round(Math.abs(deviation_mv) * 10) / 10;
  const level = LEVELS_MV.filter((limit_mv) => size_mv >= limit_mv).length;
  return deviation_mv < 0 && level ? -level : level;
}

const signed = (deviation_mv: number): string => (deviation_mv > 0 ? "+" : "") + decimal(deviation_mv, 0);

/** "Cell 17 is 50 mV above the median." for the cells that stand out, the widest first; empty when none does. */
export function outlierWords(figures: CellFigures): string {
  const outliers = figures.deviation_mv
    .map((deviation_mv, cell) => ({ cell, deviation_mv: deviation_mv ?? 0 }))
    .filter(({ deviation_mv }) => Math.abs(deviationLevel(deviation_mv)) >= OUTLIER_LEVEL)
    .sort((a, b) => Math.abs(b.deviation_mv) - Math.abs(a.deviation_mv));
  const named = outliers.slice(0, OUTLIERS_NAMED).map(({ cell, deviation_mv }) => {
    const side = deviation_mv > 0 ? "above" : "below";
    return `Cell ${cell} is ${decimal(Math.abs(deviation_mv), 0)} mV ${side} the median.`;
  });
  if (outliers.length > OUTLIERS_NAMED) named.push(`And ${outliers.length - OUTLIERS_NAMED} more.`);
  return named.join(" ");
}

export class Cells {
  readonly root: HTMLElement;
  readonly #packId: string;
  readonly #grid = el("div", { class: "cells", role: "group", "aria-label": "Cells; arrow keys move between them" });
  readonly #summary = el("p", { class: "panel-note" });
  readonly #outliers = el("p", { class: "outliers", role: "status" });
  readonly #tip = el("div", { class: "tip", role: "status", hidden: "" });
  #tiles: HTMLElement[] = [];
  #pointed: number | null = null;
  #sample: Sample | null = null;
  #figures: CellFigures | null = null;

  constructor(packId: string) {
    this.#packId = packId;
    const marks = el("span", { class: "marks" }, "▲ highest ▼ lowest");
    const levels = [-4, -3, -2, -1, 0, 1, 2, 3, 4];
    const swatches = levels.map((level) => el("span", { class: "swatch", "data-level": `${level}` }));
    const scale = el("div", { class: "scale", "aria-hidden": "true" }, marks, "−35 mV", ...swatches, "+35 mV");
    this.root = panel("cells", "Cells", scale, this.#outliers, this.#summary, this.#grid, this.#tip);
    this.#grid.addEventListener("pointerover", (event) => this.#point(event.target));
    this.#grid.addEventListener("pointerleave", () => this.#point(null));
    this.#grid.addEventListener("focusin", (event) => this.#point(event.target));
    this.#grid.addEventListener("focusout", () => this.#point(null));
    this.#grid.addEventListener("keydown", (event) => this.#walk(event));
  }

  show(sample: Sample): void {
    const cells = sample.cell_v ?? [];
    this.#sample = sample;
    this.#figures = cellFigures(cells);
    if (cells.length !== this.#tiles.length) this.#build(cells.length);
    const balancing = sample.balancing == null ? new Set<number>() : balancingCells(sample.balancing);
    this.#tiles.forEach((tile, cell) => this.#paint(tile, cell, balancing.has(cell)));
    const outliers = this.#figures ? outlierWords(this.#figures) : "";
    // Always there, so that nothing moves under the reader's eyes when a cell begins to stray.
    setText(this.#outliers, outliers || `Every measured cell is within ${LEVELS_MV.at(-1)} mV of the median.`);
    setAttribute(this.#outliers, "data-straying", outliers !== "");
    setAttribute(this.#outliers, "hidden", !this.#figures);
    setText(this.#summary, this.#summaryWords(balancing.size));
    this.#tell();
  }

  #build(count: number): void {
    this.#pointed = null;
    this.#tiles = Array.from({ length: count }, (_, cell) =>
      el("div", {
        class: "cell",
        "data-pack": this.#packId,
        "data-cell": String(cell),
        "data-field": "cell_v",
        tabindex: cell === 0 ? "0" : "-1",
      }),
    );
    this.#grid.replaceChildren(...this.#tiles);
  }

  #paint(tile: HTMLElement, cell: number, balancing: boolean): void {
    const value = this.#sample?.cell_v?.[cell];
    const deviation_mv = this.#figures?.deviation_mv[cell] ?? null;
    const level = deviation_mv === null ? null : deviationLevel(deviation_mv);
    const extreme = cell === this.#figures?.max ? "▲" : cell === this.#figures?.min ? "▼" : "";
    const far = level !== null && Math.abs(level) > 2 ? signed(deviation_mv!) : "";
    setText(tile, value == null ? missing(this.#sample, `cell_v[${cell}]`) : decimal(value, 3));
    setAttribute(tile, "data-level", level === null ? null : String(level));
    setAttribute(tile, "data-mark", extreme + far || null);
    setAttribute(tile, "data-extreme", extreme !== "");
    setAttribute(tile, "data-missing", value == null);
    setAttribute(tile, "data-balancing", balancing);
    setAttribute(tile, "aria-label", this.#words(cell));
  }

  #words(cell: number): string {
    const value = this.#sample?.cell_v?.[cell];
    const deviation_mv = this.#figures?.deviation_mv[cell];
    if (value == null || deviation_mv == null) return `Cell ${cell}: ${missing(this.#sample, `cell_v[${cell}]`)}`;
    return `Cell ${cell}: ${decimal(value, 3)} V, ${signed(deviation_mv)} mV from the median`;
  }

  #summaryWords(balancing: number): string {
    const figures = this.#figures;
    const cells = this.#sample?.cell_v ?? [];
    if (!figures) return `No cell voltages: ${missing(this.#sample, "cell_v")}.`;
    const max_v = cells[figures.max]!;
    const min_v = cells[figures.min]!;
    const measured = cells.filter((value) => value !== null).length;
    const parts = [
      `Spread ${decimal((max_v - min_v) * 1000, 0)} mV`,
      `highest ${decimal(max_v, 3)} V (cell ${figures.max})`,
      `lowest ${decimal(min_v, 3)} V (cell ${figures.min})`,
      `median ${decimal(figures.median_v, 3)} V`,
    ];
    if (measured < cells.length) parts.push(`${cells.length - measured} of ${cells.length} not measured`);
    if (balancing) parts.push(`${balancing} balancing`);
    return parts.join(" · ");
  }

  #point(target: EventTarget | null): void {
    const tile = target instanceof HTMLElement ? target.closest<HTMLElement>(".cell") : null;
    this.#pointed = tile ? Number(tile.dataset["cell"]) : null;
    this.#tell();
  }

  /** The tip stands above the tile that is pointed at or has the focus. */
  #tell(): void {
    const tile = this.#pointed === null ? undefined : this.#tiles[this.#pointed];
    setAttribute(this.#tip, "hidden", !tile);
    if (!tile) return;
    setText(this.#tip, this.#words(this.#pointed!));
    const room = this.root.clientWidth - this.#tip.offsetWidth - 8;
    const left = tile.offsetLeft + tile.offsetWidth / 2 - this.#tip.offsetWidth / 2;
    this.#tip.style.left = `${Math.max(8, Math.min(room, left))}px`;
    this.#tip.style.top = `${tile.offsetTop - this.#tip.offsetHeight - 6}px`;
  }

  #walk(event: KeyboardEvent): void {
    const columns = getComputedStyle(this.#grid).gridTemplateColumns.split(" ").length;
    const steps: Record<string, number> = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns };
    const step = steps[event.key];
    const from = this.#tiles.findIndex((tile) => tile === document.activeElement);
    const next = step === undefined || from < 0 ? undefined : this.#tiles[from + step];
    if (!next) return;
    event.preventDefault();
    this.#tiles[from]!.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  }
}
