/** Search, filters, order and pages above and below many packs; with few packs there is nothing to choose. */

import { el, setAttribute, setText } from "./dom.ts";
import { type Choice, ORDERS, type Order, SHOWS, type Show } from "./fleet.ts";

interface Shown {
  counts: Record<Show, number>;
  many: boolean;
  shown: number;
  choice: Choice;
  pagePacks: number;
}

const COLUMNS: [name: string, label: string, order: Order | null][] = [
  ["id", "Pack", "id"],
  ["status", "Status", "status"],
  ["state", "State", null],
  ["soc", "Charge", "soc"],
  ["soh", "Health", "soh"],
  ["life", "Life left, cycles", "rul"],
  ["risk", "Risk", "failure"],
  ["volts", "Voltage", null],
  ["amps", "Current", null],
  ["temp", "Hottest", "temp"],
  ["spread", "Spread", "spread"],
  ["spark", "Current, 5 min", null],
  ["age", "Data", "age"],
];
const keys = <K extends string>(record: Record<K, unknown>): K[] => Object.keys(record) as K[];

export class FleetBar {
  readonly root = el("div", { class: "fleet-bar" });
  readonly pager = el("nav", { class: "pager", "aria-label": "Pages", hidden: "" });
  readonly #summary = el("p", { class: "about" });
  readonly #choosing = el("div", { hidden: "" });
  readonly #chips = new Map<Show, HTMLButtonElement>();
  readonly #heads = new Map<Order, HTMLButtonElement>();
  readonly #order = el("select", { "aria-label": "Order" });
  readonly #search = el("input", { type: "search", placeholder: "Find a pack, car, fleet or model", "aria-label": "Find" });
  readonly #where = el("span", { class: "where" });
  readonly #previous = el("button", { type: "button" }, "Previous");
  readonly #next = el("button", { type: "button" }, "Next");
  readonly #changed: (choice: Choice) => void;
  #choice: Choice;

  constructor(choice: Choice, changed: (choice: Choice) => void) {
    this.#choice = choice;
    this.#changed = changed;
    this.#search.value = choice.search;
    this.#search.addEventListener("input", () => this.#choose({ search: this.#search.value.trim() }));
    for (const order of keys(ORDERS)) this.#order.append(el("option", { value: order }, ORDERS[order]));
    this.#order.addEventListener("change", () => this.#choose({ order: this.#order.value as Order }));
    const chips = el("div", { class: "chips", role: "group", "aria-label": "Show" });
    for (const show of keys(SHOWS)) chips.append(this.#chip(show));
    const order = el("label", { class: "order" }, "Order ", this.#order);
    this.#choosing.append(el("div", { class: "tools" }, chips, this.#search, order), this.#head());
    this.root.append(el("div", { class: "fleet-title" }, el("h1", {}, "Packs"), this.#summary), this.#choosing);
    this.#previous.addEventListener("click", () => this.#turn(-1));
    this.#next.addEventListener("click", () => this.#turn(1));
    this.pager.append(this.#previous, this.#where, this.#next);
  }

  #chip(show: Show): HTMLElement {
    const chip = el("button", { type: "button", class: "chip", "data-filter": show });
    chip.addEventListener("click", () => this.#choose({ show }));
    this.#chips.set(show, chip);
    return chip;
  }

  #head(): HTMLElement {
    const head = el("div", { class: "heads" });
    for (const [name, label, order] of COLUMNS) {
      const slot = el("div", { class: `slot slot-${name}` });
      if (order === null) slot.append(label);
      else {
        const button = el("button", { type: "button", title: `Order: ${ORDERS[order]}` }, label);
        button.addEventListener("click", () => this.#choose({ order }));
        this.#heads.set(order, button);
        slot.append(button);
      }
      head.append(slot);
    }
    return head;
  }

  #choose(part: Partial<Choice>): void {
    this.#choice = { ...this.#choice, page: 0, ...part };
    this.#changed(this.#choice);
  }

  #turn(by: number): void {
    this.#choose({ page: this.#choice.page + by });
    window.scrollTo({ top: 0 });
  }

  show({ counts, many, shown, choice, pagePacks }: Shown): void {
    this.#choice = choice;
    setText(this.#summary, many ? "" : summaryWords(counts)); // the filters count too
    setAttribute(this.#choosing, "hidden", !many);
    for (const [show, chip] of this.#chips) {
      setText(chip, `${SHOWS[show]} ${counts[show]}`);
      setAttribute(chip, "aria-pressed", String(show === choice.show));
    }
    for (const [order, button] of this.#heads) setAttribute(button, "data-active", order === choice.order);
    this.#order.value = choice.order;
    const pages = Math.max(1, Math.ceil(shown / pagePacks));
    setAttribute(this.pager, "hidden", !many);
    setAttribute(this.#previous, "disabled", choice.page === 0);
    setAttribute(this.#next, "disabled", choice.page >= pages - 1);
    const first = choice.page * pagePacks;
    const span = `${first + 1}–${Math.min(shown, first + pagePacks)} of ${shown}`;
    setText(this.#where, shown ? span : "No pack fits this choice.");
  }
}

/** "3 packs · 1 critical · 1 stale"; what does not occur is not said. */
function summaryWords(counts: Record<Show, number>): string {
  const all = counts.all === 1 ? "1 pack" : `${counts.all} packs`;
  const troubles = keys(SHOWS).filter((show) => show !== "all" && counts[show]);
  return counts.all ? [all, ...troubles.map((show) => `${counts[show]} ${show === "unpredicted" ? "without prediction" : show}`)].join(" · ") : "";
}
