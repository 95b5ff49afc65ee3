/** How long a pack will still do: remaining life, risk of failure, and the model that says so; or why nobody can say. */

import { el, panel, setAttribute, setText } from "./dom.ts";
import { Gauge, riskBand } from "./gauge.ts";
import { cyclesText, modelSentence, percentText, reasonSentence, shortReason, stepLook, stepName } from "./prediction_words.ts";
import { Bar, Reading } from "./reading.ts";
import { type Estimate, type Pack, prediction, seconds } from "./records.ts";
import { ageWords } from "./words.ts";

const DOMAIN = { true: "yes", false: "no, take with care" } as const;

export class Prediction {
  readonly root: HTMLElement;
  readonly #packId: string;
  readonly #reason: HTMLElement;
  readonly #life: Reading;
  readonly #risk: Reading;
  readonly #lo: HTMLElement;
  readonly #hi: HTMLElement;
  readonly #interval: HTMLElement;
  readonly #gauge = new Gauge(null);
  readonly #bar = new Bar();
  readonly #model: HTMLElement;
  readonly #simulated = el("span", { class: "badge", hidden: "" }, "trained on simulated packs");
  readonly #domain: HTMLElement;
  readonly #age = el("dd");
  readonly #step: HTMLElement;
  readonly #sentence = el("p", { class: "step-words" });
  #told: Estimate | null = null;

  constructor(packId: string) {
    this.#packId = packId;
    this.#life = new Reading(packId, "rul_cycles");
    this.#risk = new Reading(packId, "failure_probability");
    [this.#lo, this.#hi] = [this.#field("b", "rul_cycles_lo"), this.#field("b", "rul_cycles_hi")];
    this.#model = this.#field("span", "model_id");
    this.#domain = this.#field("dd", "in_domain");
    this.#step = this.#field("span", "model_step", "pill step");
    this.#reason = this.#field("p", "prediction_reason", "no-answer");
    this.#interval = el("p", { class: "below" }, "90 % of such packs last another ", this.#lo, " to ", this.#hi, " cycles");
    this.#bar.root.classList.add("risk");
    const fact = (name: string, value: HTMLElement): HTMLElement => el("div", {}, el("dt", {}, name), value);
    const facts = el(
      "dl",
      { class: "facts" },
      fact("Model", el("dd", { class: "model" }, this.#simulated, this.#model)),
      fact("Within its training range", this.#domain),
      fact("Predicted", this.#age),
    );
    const part = (name: string, label: string, ...content: Node[]): HTMLElement =>
      el("div", { class: `outlook outlook-${name}` }, el("span", { class: "label" }, label), ...content);
    this.root = panel(
      "prediction",
      "Prediction",
      null,
      this.#reason,
      el(
        "div",
        { class: "outlooks" },
        part("life", "Remaining life", this.#life.root, this.#gauge.root, this.#interval),
        part("risk", "End of life within 100 cycles", this.#risk.root, this.#bar.root),
        el("div", { class: "outlook outlook-model" }, facts),
      ),
      el("div", { class: "step-line" }, el("span", { class: "label" }, "Model in the car"), this.#step, this.#sentence),
    );
  }

  #field(tag: "b" | "p" | "dd" | "span", field: string, style: string | null = null): HTMLElement {
    return el(tag, { class: style, "data-pack": this.#packId, "data-field": field });
  }

  show(pack: Pack): void {
    const told = prediction(pack);
    this.#told = told;
    setText(this.#reason, reasonSentence(told.reason));
    setAttribute(this.#reason, "hidden", told.reason === null);
    setAttribute(this.#reason, "data-reason", told.reason);
    const why = shortReason(told.reason);
    this.#life.show(cyclesText(told.rul_cycles), why);
    this.#risk.show(percentText(told.failure_probability), why);
    setAttribute(this.root, "data-silent", told.rul_cycles === null);
    this.#gauge.show(told);
    setText(this.#lo, cyclesText(told.rul_cycles_lo) ?? "");
    setText(this.#hi, cyclesText(told.rul_cycles_hi) ?? "");
    setAttribute(this.#interval, "hidden", told.rul_cycles_lo === null || told.rul_cycles_hi === null);
    this.#bar.show(told.failure_probability);
    setAttribute(this.#bar.root, "data-band", told.failure_probability === null ? null : riskBand(told.failure_probability));
    setText(this.#model, told.model_id ?? "none");
    setAttribute(this.#model, "data-missing", told.model_id === null);
    setText(this.#domain, told.in_domain === null ? "–" : DOMAIN[`${told.in_domain}`]);
    setAttribute(this.#domain, "data-value", told.in_domain === null ? null : String(told.in_domain));
    setText(this.#step, stepName(pack.model));
    setAttribute(this.#step, "data-step", pack.model?.step ?? null);
    setAttribute(this.#step, "data-status", stepLook(pack.model));
    setText(this.#sentence, modelSentence(pack.model, told.model_id, pack.desired));
  }

  /** Whether the model that answers has learned from simulated packs. */
  label(simulated: boolean): void {
    setAttribute(this.#simulated, "hidden", !simulated);
  }

  /** What moves with time alone. */
  tick(now_s: number): void {
    const t_s = seconds(this.#told?.t);
    setText(this.#age, t_s === null ? "–" : ageWords(now_s - t_s));
  }
}
