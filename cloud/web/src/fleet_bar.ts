/** Search, filters, order and pages above and below many packs; with few packs there is nothing to choose. */

import { el, setAttribute, setText } from "./dom.ts";
import { type Choice, FILTERS, type Filter, SORTS, type Sort } from "./fleet.ts";

interface Shown {
  counts: Record<Filter, number>;
  many: boolean;
  shown: number;
  page: number;
  pages: number;
  pagePacks: number;
}

const COLUMNS: [name: string, label: string, sort: Sort | null][] = [
  ["id", "Pack", "id"],
  ["status", "Status", "status"],
  ["state", "State", null],
  ["soc", "Charge", "soc"],
  ["volts", "Voltage", null],
  ["amps", "Current", null],
  ["temp", "Hottest", "temp"],
  ["spread", "Spread", "spread"],
  ["soh", "Health", "soh"],
  ["spark", "Current, 5 min", null],
  ["age", "Data", "age"],
];

export class FleetBar {
  readonly root = el("div", { class: "fleet-bar" });
  readonly pager = el("nav", { class: "pager", "aria-label": "Pages", hidden: "" });
  readonly #summary = el("p", { class: "about" });
  readonly #choosing = el("div", { hidden: "" });
  readonly #chips = new Map<Filter, HTMLButtonElement>();
  readonly #heads = new Map<Sort, HTMLButtonElement>();
  readonly #sort = el("select", { "aria-label": "Order" });
  readonly #where = el("span", { class: "where" });
  readonly #previous = el("button", { type: "button" }, "Previous");
  readonly #next = el("button", { type: "button" }, "Next");
  readonly #changed: (choice: Choice, page: number) => void;
  #choice: Choice;
  #page = 0;

  constructor(choice: Choice, changed: (choice: Choice, page: number) => void) {
    this.#choice = choice;
    this.#changed = changed;
    const placeholder = "Find a pack, car, fleet or state";
    const search = el("input", { type: "search", placeholder, "aria-label": "Find" });
    search.addEventListener("input", () => this.#choose({ search: search.value }));
    for (const [sort, words] of Object.entries(SORTS)) this.#sort.append(el("option", { value: sort }, words));
    this.#sort.addEventListener("change", () => this.#choose({ sort: this.#sort.value as Sort }));
    const chips = el("div", { class: "chips", role: "group", "aria-label": "Show" });
    for (const filter of FILTERS) chips.append(this.#chip(filter));
    const order = el("label", { class: "order" }, "Order ", this.#sort);
    this.#choosing.append(el("div", { class: "tools" }, chips, search, order), this.#head());
    this.root.append(el("div", { class: "fleet-title" }, el("h1", {}, "Packs"), this.#summary), this.#choosing);
    this.#previous.addEventListener("click", () => this.#turn(-1));
    this.#next.addEventListener("click", () => this.#turn(1));
    this.pager.append(this.#previous, this.#where, this.#next);
  }

  #chip(filter: Filter): HTMLElement {
    const chip = el("button", { type: "button", class: "chip", "data-filter": filter });
    chip.addEventListener("click", () => this.#choose({ filter }));
    this.#chips.set(filter, chip);
    return chip;
  }

  #head(): HTMLElement {
    const head = el("div", { class: "heads" });
    for (const [name, label, sort] of COLUMNS) {
      const slot = el("div", { class: `slot slot-${name}` });
      if (sort === null) slot.append(label);
      else {
        const button = el("button", { type: "button", title: `Order: ${SORTS[sort]}` }, label);
        button.addEventListener("click", () => this.#choose({ sort }));
        this.#heads.set(sort, button);
        slot.append(button);
      }
      head.append(slot);
    }
    return head;
  }

  #choose(part: Partial<Choice>): void {
    this.#choice = { ...this.#choice, ...part };
    this.#changed(this.#choice, 0);
  }

  #turn(by: number): void {
    this.#changed(this.#choice, this.#page + by);
    window.scrollTo({ top: 0 });
  }

  show({ counts, many, shown, page, pages, pagePacks }: Shown): void {
    this.#page = page;
    setText(this.#summary, many ? "" : summaryWords(counts)); // the filters count too
    setAttribute(this.#choosing, "hidden", !many);
    for (const [filter, chip] of this.#chips) {
      setText(chip, `${filter} ${counts[filter]}`);
      setAttribute(chip, "aria-pressed", String(filter === this.#choice.filter));
    }
    for (const [sort, button] of this.#heads) setAttribute(button, "data-active", sort === this.#choice.sort);
    this.#sort.value = this.#choice.sort;
    setAttribute(this.pager, "hidden", !many);
    setAttribute(this.#previous, "disabled", page === 0);
    setAttribute(this.#next, "disabled", page === pages - 1);
    const first = page * pagePacks;
    const span = `${first + 1}–${Math.min(shown, first + pagePacks)} of ${shown}`;
    setText(this.#where, shown ? span : "No pack fits this search.");
  }
}

/** "3 packs · 1 critical · 1 stale"; what does not occur is not said. */
function summaryWords(counts: Record<Filter, number>): string {
  const all = counts.all === 1 ? "1 pack" : `${counts.all} packs`;
  const troubles = FILTERS.filter((filter) => filter !== "all" && counts[filter]);
  return counts.all ? [all, ...troubles.map((filter) => `${counts[filter]} ${filter}`)].join(" · ") : "";
}
