/** One number on the screen, marked with the pack and the field that it shows, so that it can be found and tested. */

import { el, setAttribute, setText } from "./dom.ts";
import type { Status } from "./records.ts";
import { FIELDS } from "./words.ts";

export class Reading {
  readonly root: HTMLElement;
  readonly #value: HTMLElement;

  /** `field`: a name of Sample, or null for a figure that the page works out itself. */
  constructor(packId: string, field: keyof typeof FIELDS | null, unit = field ? FIELDS[field].unit : "") {
    this.#value = el("span", { class: "value", "data-pack": packId, "data-field": field });
    this.root = el("span", { class: "reading" }, this.#value, el("span", { class: "unit" }, unit));
  }

  /** Shows `text`, or the words of why there is none. */
  show(text: string | null, why: string): void {
    setText(this.#value, text ?? why);
    setAttribute(this.root, "data-missing", text === null);
  }
}

/** A bar of 0..100 %. */
export class Bar {
  readonly root: HTMLElement;
  readonly #fill = el("span", { class: "fill" });

  constructor() {
    this.root = el("span", { class: "bar", "aria-hidden": "true" }, this.#fill);
  }

  show(share: number | null | undefined): void {
    const percent = Math.min(100, Math.max(0, (share ?? 0) * 100));
    this.#fill.style.width = `${percent.toFixed(1)}%`;
  }
}

/** The band in a word and a colour. */
export class StatusPill {
  readonly root = el("span", { class: "pill" });

  show(status: Status | null): void {
    setText(this.root, status ?? "unknown");
    setAttribute(this.root, "data-status", status ?? "unknown");
  }
}
