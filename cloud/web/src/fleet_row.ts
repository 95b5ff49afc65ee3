/** One pack among the others: a card while they are few, a row of a table when they are many (the same elements). */

import { Bar, Reading, StatusPill } from "./reading.ts";
import { el, setAttribute, setText } from "./dom.ts";
import { Gauge, LIST_SCALE, riskBand } from "./gauge.ts";
import { cyclesText, percentText, shortReason } from "./prediction_words.ts";
import {
  type Pack, SIMULATED, type Sample, hottest_c, isSimulated, isStale, prediction, seconds, spread_mv, statusOf, tagsOf,
} from "./records.ts";
import { Sparkline, type Trend } from "./sparkline.ts";
import { ageWords, decimal, fieldText, flowWords, missing, stateWords } from "./words.ts";

const NO_DATA = "–";

/** "NMC · 96s2p · 172 Ah · CAR_001 · north · taxi", of what is known; that it is simulated is said by a badge. */
export function packWords(pack: Pack): string {
  const shape = pack.series ? `${pack.series}s${pack.parallel ?? 1}p` : null;
  const capacity = pack.nominal_ah ? `${decimal(pack.nominal_ah, pack.nominal_ah < 10 ? 1 : 0)} Ah` : null;
  const parts = [pack.chemistry?.toUpperCase(), shape, capacity, pack.vehicle, pack.fleet, ...tagsOf(pack)];
  return parts.filter((part) => part && part !== SIMULATED).join(" · ");
}

export class FleetRow {
  readonly root: HTMLElement;
  readonly #state = el("span", { class: "state" });
  readonly #about = el("span", { class: "about" });
  readonly #flow = el("span", { class: "flow" });
  readonly #age = el("span", { class: "age" });
  readonly #pill = new StatusPill();
  readonly #bar = new Bar();
  readonly #simulated = el("span", { class: "badge", hidden: "" }, SIMULATED);
  readonly #gauge = new Gauge(LIST_SCALE);
  readonly #spark: Sparkline;
  readonly #life: Reading;
  readonly #risk: Reading;
  readonly #soc: Reading;
  readonly #soh: Reading;
  readonly #pack_v: Reading;
  readonly #current_a: Reading;
  readonly #hottest_c: Reading;
  readonly #spread_mv: Reading;

  constructor(packId: string) {
    this.#spark = new Sparkline(`Current of ${packId} in the last 5 minutes`);
    this.#soc = new Reading(packId, "soc_bms");
    this.#soh = new Reading(packId, "soh_bms");
    this.#pack_v = new Reading(packId, "pack_v");
    this.#current_a = new Reading(packId, "current_a");
    this.#hottest_c = new Reading(packId, "temp_c");
    this.#spread_mv = new Reading(packId, null, "mV");
    this.#life = new Reading(packId, "rul_cycles");
    this.#risk = new Reading(packId, "failure_probability");
    this.#state.dataset["pack"] = packId;
    this.#state.dataset["field"] = "state";
    const link = el("a", { class: "pack-id", href: `#/pack/${encodeURIComponent(packId)}` }, packId);
    const slot = (name: string, label: string | null, ...content: Node[]): HTMLElement => {
      const above = label === null ? null : el("span", { class: "label" }, label);
      return el("div", { class: `slot slot-${name}` }, above, ...content);
    };
    this.root = el(
      "li",
      { class: "pack", "data-pack": packId },
      slot("id", null, el("span", { class: "pack-title" }, link, this.#simulated), this.#about),
      slot("status", null, this.#pill.root),
      slot("state", "State", this.#state),
      slot("soc", null, this.#bar.root, this.#soc.root),
      slot("soh", "Health", this.#soh.root),
      slot("life", "Remaining life", this.#life.root, this.#gauge.root),
      slot("risk", "Risk in 100 cycles", this.#risk.root),
      slot("volts", "Voltage", this.#pack_v.root),
      slot("amps", "Current", this.#current_a.root, this.#flow),
      slot("temp", "Hottest", this.#hottest_c.root),
      slot("spread", "Cell spread", this.#spread_mv.root),
      slot("spark", null, this.#spark.root),
      slot("age", "Current, last 5 min", this.#age),
    );
  }

  show(pack: Pack): void {
    const sample = pack.latest;
    const why = (field: string): string => (sample ? missing(sample, field) : NO_DATA);
    const number = (reading: Reading, field: "soc_bms" | "soh_bms" | "pack_v" | "current_a"): void =>
      reading.show(fieldText(field, sample?.[field]), why(field));
    setText(this.#about, packWords(pack));
    setAttribute(this.#simulated, "hidden", !isSimulated(pack));
    this.#outlook(pack);
    setText(this.#state, stateWords(sample));
    this.#pill.show(statusOf(pack));
    setAttribute(this.root, "data-status", statusOf(pack) ?? "unknown");
    this.#bar.show(sample?.soc_bms);
    number(this.#soc, "soc_bms");
    number(this.#soh, "soh_bms");
    number(this.#pack_v, "pack_v");
    number(this.#current_a, "current_a");
    setText(this.#flow, flowWords(sample?.current_a));
    const figure = (of: (sample: Sample) => number | null): number | null => (sample ? of(sample) : null);
    this.#hottest_c.show(fieldText("temp_c", figure(hottest_c)), why("temp_c"));
    const spread = figure(spread_mv);
    this.#spread_mv.show(spread === null ? null : decimal(spread, 0), why("cell_v"));
  }

  #outlook(pack: Pack): void {
    const told = prediction(pack);
    const why = pack.latest || pack.estimate ? shortReason(told.reason) : NO_DATA;
    const { failure_probability } = told;
    this.#life.show(cyclesText(told.rul_cycles), why);
    this.#risk.show(percentText(failure_probability), "–");
    this.#gauge.show(told);
    setAttribute(this.#risk.root, "data-band", failure_probability === null ? null : riskBand(failure_probability));
    setAttribute(this.root, "data-doubtful", told.in_domain === false);
  }

  /** What moves with time alone. */
  tick(pack: Pack, now_s: number, trend: Trend | undefined): void {
    const last_s = seconds(pack.t);
    const age_s = last_s === null ? null : now_s - last_s;
    setText(this.#age, ageWords(age_s));
    const stale = isStale(pack, now_s);
    setAttribute(this.root, "data-stale", stale);
    if (trend) this.#spark.show(trend, stale && last_s !== null ? last_s : now_s);
  }
}
