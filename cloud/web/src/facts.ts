/** Tables of single values: temperatures, switches, limits, the car, and whatever else the mapping brings. */

import { el, panel, setAttribute, setText } from "./dom.ts";
import { type NumberField, type Sample, type SwitchField, hottest_c } from "./records.ts";
import { FIELDS, SWITCHES, decimal, fieldText, missing, plain } from "./words.ts";

/** A list of name and value whose rows are made when their names are first seen. */
class FactList {
  readonly root = el("dl", { class: "facts" });
  readonly #packId: string;
  readonly #rows = new Map<string, { value: HTMLElement; unit: HTMLElement }>();

  constructor(packId: string) {
    this.#packId = packId;
  }

  /** `text` null: `why` is shown instead, as words. */
  show(field: string, label: string, text: string | null, unit: string, why: string): void {
    const row = this.#rows.get(field) ?? this.#add(field, label);
    setText(row.value, text ?? why);
    setText(row.unit, text === null ? "" : unit);
    setAttribute(row.value, "data-missing", text === null);
  }

  #add(field: string, label: string): { value: HTMLElement; unit: HTMLElement } {
    const value = el("span", { class: "value", "data-pack": this.#packId, "data-field": field });
    const unit = el("span", { class: "unit" });
    this.root.append(el("div", {}, el("dt", {}, label), el("dd", {}, value, unit)));
    const row = { value, unit };
    this.#rows.set(field, row);
    return row;
  }
}

const LIMITS: NumberField[] = ["charge_limit_a", "discharge_limit_a", "insulation_kohm"];
const USE: NumberField[] = ["cycles", "throughput_ah", "energy_kwh", "odometer_km", "speed_kmh"];
const CLIMATE: NumberField[] = ["ambient_c", "coolant_in_c", "coolant_out_c"];

/** A fixed set of number fields under one heading. */
class NumberPanel {
  readonly root: HTMLElement;
  readonly #list: FactList;
  readonly #fields: NumberField[];

  constructor(packId: string, name: string, title: string, fields: NumberField[]) {
    this.#fields = fields;
    this.#list = new FactList(packId);
    this.root = panel(name, title, null, this.#list.root);
  }

  show(sample: Sample): void {
    for (const field of this.#fields) {
      const { label, unit } = FIELDS[field];
      this.#list.show(field, label, fieldText(field, sample[field]), unit, missing(sample, field));
    }
  }
}

class Switches {
  readonly root: HTMLElement;
  readonly #list: FactList;

  constructor(packId: string) {
    this.#list = new FactList(packId);
    this.root = panel("switches", "Contactors", null, this.#list.root);
  }

  show(sample: Sample): void {
    for (const [field, label] of Object.entries(SWITCHES) as [SwitchField, string][]) {
      const closed = sample[field];
      this.#list.show(field, label, closed == null ? null : closed ? "closed" : "open", "", missing(sample, field));
    }
  }
}

class Temperatures {
  readonly root: HTMLElement;
  readonly #packId: string;
  readonly #grid = el("div", { class: "temps" });
  readonly #note = el("p", { class: "panel-note" });
  #tiles: HTMLElement[] = [];

  constructor(packId: string) {
    this.#packId = packId;
    this.root = panel("temps", "Temperatures", null, this.#note, this.#grid);
  }

  show(sample: Sample): void {
    const temps = sample.temp_c ?? [];
    const hottest = hottest_c(sample);
    const coldest = Math.min(...temps.filter((value) => value !== null));
    setText(
      this.#note,
      hottest === null
        ? `No temperatures: ${missing(sample, "temp_c")}.`
        : `Hottest ${decimal(hottest, 1)} °C · coldest ${decimal(coldest, 1)} °C · ${temps.length} sensors`,
    );
    if (temps.length !== this.#tiles.length) this.#build(temps.length);
    this.#tiles.forEach((tile, sensor) => {
      const value = temps[sensor];
      setText(tile, value == null ? missing(sample, `temp_c[${sensor}]`) : decimal(value, 1));
      setAttribute(tile, "data-missing", value == null);
      setAttribute(tile, "data-band", value == null ? null : temperatureBand(value));
    });
  }

  #build(count: number): void {
    this.#tiles = Array.from({ length: count }, (_, sensor) =>
      el("div", { class: "temp", "data-pack": this.#packId, "data-field": "temp_c", "data-sensor": String(sensor) }),
    );
    this.#grid.replaceChildren(...this.#tiles);
  }
}

/** The page's default bands of temperature; colour only, the server judges. */
function temperatureBand(temp_c: number): string {
  if (temp_c < 20) return "cold";
  if (temp_c <= 40) return "optimal";
  return temp_c <= 60 ? "warm" : "hot";
}

class Extras {
  readonly root: HTMLElement;
  readonly #list: FactList;

  constructor(packId: string) {
    this.#list = new FactList(packId);
    this.#list.root.classList.add("facts-wide");
    this.root = panel("extra", "Further signals", null, this.#list.root);
  }

  show(sample: Sample): void {
    const extras = Object.entries(sample.extra ?? {}).sort(([a], [b]) => a.localeCompare(b));
    setAttribute(this.root, "hidden", extras.length === 0);
    for (const [name, value] of extras) {
      const why = missing(sample, `extra.${name}`);
      this.#list.show(`extra.${name}`, name, value == null ? null : plain(value), "", why);
    }
  }
}

/** The small panels of a pack, in the order of the page. */
export function factPanels(packId: string): { root: HTMLElement; show(sample: Sample): void }[] {
  return [
    new Temperatures(packId),
    new Switches(packId),
    new NumberPanel(packId, "limits", "Limits", LIMITS),
    new NumberPanel(packId, "climate", "Climate", CLIMATE),
    new NumberPanel(packId, "use", "Use", USE),
    new Extras(packId),
  ];
}
