/** A pack's big numbers. */

import { el, setText } from "./dom.ts";
import { Bar, Reading } from "./reading.ts";
import { type NumberField, type Reading as Value, type Sample, hottest_c, power_kw, spread_mv } from "./records.ts";
import { FIELDS, decimal, fieldText, flowWords, missing } from "./words.ts";

export class Headline {
  readonly root = el("div", { class: "headline" });
  readonly #bar = new Bar();
  readonly #flow = el("span", { class: "flow" });
  readonly #swing_v = el("span", { class: "below" });
  readonly #swing_a = el("span", { class: "below" });
  readonly #numbers: [NumberField, Reading][];
  readonly #hottest_c: Reading;
  readonly #power_kw: Reading;
  readonly #spread_mv: Reading;

  constructor(packId: string) {
    const number = (field: NumberField): Reading => new Reading(packId, field);
    const [soc, pack_v, current_a, soh] = [number("soc_bms"), number("pack_v"), number("current_a"), number("soh_bms")];
    this.#numbers = [["soc_bms", soc], ["pack_v", pack_v], ["current_a", current_a], ["soh_bms", soh]];
    this.#hottest_c = new Reading(packId, "temp_c");
    this.#power_kw = new Reading(packId, null, "kW");
    this.#spread_mv = new Reading(packId, null, "mV");
    const big = (name: string, label: string, ...content: Node[]): HTMLElement =>
      el("div", { class: `big big-${name}` }, el("span", { class: "label" }, label), ...content);
    this.root.append(
      big("soc", "State of charge", soc.root, this.#bar.root),
      big("volts", "Pack voltage", pack_v.root, this.#swing_v),
      big("amps", "Current", this.#flow, current_a.root, this.#swing_a),
      big("power", "Power", this.#power_kw.root),
      big("temp", "Hottest", this.#hottest_c.root),
      big("spread", "Cell spread", this.#spread_mv.root),
      big("soh", "State of health", soh.root),
    );
  }

  show(sample: Sample): void {
    for (const [field, reading] of this.#numbers) reading.show(fieldText(field, sample[field]), missing(sample, field));
    this.#bar.show(sample.soc_bms);
    setText(this.#flow, flowWords(sample.current_a));
    this.#hottest_c.show(fieldText("temp_c", hottest_c(sample)), missing(sample, "temp_c"));
    const spread = spread_mv(sample);
    this.#spread_mv.show(spread === null ? null : decimal(spread, 0), missing(sample, "cell_v"));
    const power = power_kw(sample);
    const lacking = sample.pack_v == null ? "pack_v" : "current_a";
    this.#power_kw.show(power === null ? null : decimal(power, 1), missing(sample, lacking));
    setText(this.#swing_v, swingWords("pack_v", sample.pack_v_min, sample.pack_v_max));
    setText(this.#swing_a, swingWords("current_a", sample.current_a_min, sample.current_a_max));
  }
}

/** Between what the value swung within the Sample; empty when it stood still. */
function swingWords(field: NumberField, low: Value, high: Value): string {
  const [from, to] = [fieldText(field, low), fieldText(field, high)];
  return from === null || to === null || from === to ? "" : `${from} to ${to} ${FIELDS[field].unit}`;
}
