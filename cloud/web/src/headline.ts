/** A pack's big numbers. */

import { el, setText } from "./dom.ts";
import { Bar, Reading } from "./reading.ts";
import { type NumberField, type Sample, hottest_c, power_kw, spread_mv } from "./records.ts";
import { decimal, fieldText, flowWords, missing } from "./words.ts";

export class Headline {
  readonly root = el("div", { class: "headline" });
  readonly #bar = new Bar();
  readonly #flow = el("span", { class: "below" });
  readonly #swing = el("span", { class: "below" });
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
      big("volts", "Pack voltage", pack_v.root),
      big("amps", "Current", current_a.root, this.#flow),
      big("power", "Power", this.#power_kw.root, this.#swing),
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
    const { current_a_min: low, current_a_max: high } = sample;
    setText(this.#swing, low == null || high == null || low === high ? "" : `${decimal(low, 1)} to ${decimal(high, 1)} A`);
  }
}
