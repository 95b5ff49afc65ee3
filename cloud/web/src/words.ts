/** How numbers, times and codes are said on the screen. */

import type { NumberField, PackEvent, PackState, Reading, Sample, SwitchField } from "./records.ts";

export interface FieldWords {
  label: string;
  unit: string;
  digits: number;
  scale?: number; // percent exists on the screen only
}

export const FIELDS: Record<NumberField | "temp_c" | "cell_v" | "rul_cycles" | "failure_probability", FieldWords> = {
  rul_cycles: { label: "Remaining life", unit: "cycles", digits: 0 },
  failure_probability: { label: "Failure probability", unit: "%", digits: 1, scale: 100 },
  soc_bms: { label: "State of charge", unit: "%", digits: 1, scale: 100 },
  soh_bms: { label: "State of health", unit: "%", digits: 1, scale: 100 },
  pack_v: { label: "Pack voltage", unit: "V", digits: 1 },
  pack_v_min: { label: "Lowest in the second", unit: "V", digits: 1 },
  pack_v_max: { label: "Highest in the second", unit: "V", digits: 1 },
  current_a: { label: "Current", unit: "A", digits: 1 },
  current_a_min: { label: "Lowest in the second", unit: "A", digits: 1 },
  current_a_max: { label: "Highest in the second", unit: "A", digits: 1 },
  temp_c: { label: "Hottest", unit: "°C", digits: 1 },
  cell_v: { label: "Cell", unit: "V", digits: 3 },
  charge_limit_a: { label: "Charge limit", unit: "A", digits: 1 },
  discharge_limit_a: { label: "Discharge limit", unit: "A", digits: 1 },
  insulation_kohm: { label: "Insulation", unit: "kΩ", digits: 0 },
  ambient_c: { label: "Ambient", unit: "°C", digits: 1 },
  coolant_in_c: { label: "Coolant in", unit: "°C", digits: 1 },
  coolant_out_c: { label: "Coolant out", unit: "°C", digits: 1 },
  speed_kmh: { label: "Speed", unit: "km/h", digits: 1 },
  odometer_km: { label: "Odometer", unit: "km", digits: 1 },
  throughput_ah: { label: "Throughput", unit: "Ah", digits: 1 },
  energy_kwh: { label: "Energy", unit: "kWh", digits: 2 },
  cycles: { label: "Full cycles", unit: "", digits: 1 },
};

export const SWITCHES: Record<SwitchField, string> = {
  contactor_main: "Main contactor",
  contactor_precharge: "Precharge contactor",
  charge_mos: "Charge switch",
  discharge_mos: "Discharge switch",
};

const STATES: Record<PackState, string> = {
  off: "off",
  park: "parked",
  drive: "driving",
  charge_ac: "charging AC",
  charge_dc: "charging DC",
  fault: "fault",
};

/** A number with fixed digits, a true minus and thin groups of thousands. */
export function decimal(value: number, digits: number): string {
  const text = Math.abs(value).toFixed(digits);
  const [whole = "", rest] = text.split(".");
  const grouped = whole.length > 4 ? whole.replace(/\B(?=(\d{3})+$)/g, "\u2009") : whole;
  const sign = value < 0 && Number(text) !== 0 ? "−" : "";
  return sign + grouped + (rest ? `.${rest}` : "");
}

/** The number of a field as the screen shows it, without its unit; null when it is not known. */
export function fieldText(name: keyof typeof FIELDS, value: Reading): string | null {
  const { digits, scale = 1 } = FIELDS[name];
  return value == null ? null : decimal(value * scale, digits);
}

/** Why a field has no value, in words; never a number. `key` as in the Sample's quality: `pack_v`, `cell_v[12]`. */
export function missing(sample: Sample | null, key: string): string {
  const reason = sample?.quality?.[key] ?? sample?.quality?.[key.replace(/\[\d+\]$/, "")] ?? "absent";
  return reason.replaceAll("_", " ");
}

/** `state` in words. */
export function stateWords(sample: Sample | null): string {
  if (!sample) return "no data yet";
  return sample.state ? STATES[sample.state] ?? sample.state : `state ${missing(sample, "state")}`;
}

/** Which way the current flows, in words; within 0.05 A it rests. */
export function flowWords(current_a: Reading): string {
  if (current_a == null) return "";
  if (Math.abs(current_a) < 0.05) return "at rest";
  return current_a > 0 ? "charging" : "discharging";
}

/** A code such as `cell_over_voltage` in words. */
export function codeWords(code: string): string {
  const joined = code.replaceAll("_", " ").replace("over ", "over-").replace("under ", "under-");
  const words = joined.replace("temp", "temperature");
  return words.charAt(0).toUpperCase() + words.slice(1);
}

/** Events whose value has a unit for people: name, factor, unit. */
const BANDS: Record<string, [name: string, factor: number, unit: string]> = {
  soc_band: ["State of charge", 100, "%"],
  soh_band: ["State of health", 100, "%"],
  temperature_band: ["Hottest temperature", 1, "°C"],
  rul_band: ["Remaining life", 1, "cycles"],
  failure_probability_band: ["Failure probability", 100, "%"],
};

/** One sentence for an Event, made from its code and numbers. */
export function eventWords({ code, cell, value, threshold }: PackEvent): string {
  if (code === "end_of_life") return `End of life${value == null ? "" : ` after ${decimal(value, 0)} cycles`}`;
  const [name, factor, unit] = BANDS[code] ?? [codeWords(code), 1, ""];
  const said = (number: number): string =>
    unit ? `${decimal(number * factor, 1).replace(/\.0$/, "")}\u00a0${unit}` : plain(number);
  const at = cell == null ? "" : `, cell ${cell}`;
  const now = value == null ? "" : `: ${said(value)}`;
  const limit = threshold == null ? "" : ` (limit ${said(threshold)})`;
  return name + at + now + limit;
}

/** A number of unknown kind: up to five digits that matter. */
export function plain(value: number): string {
  if (Number.isInteger(value)) return decimal(value, 0);
  const digits = Math.min(6, Math.max(0, 4 - Math.floor(Math.log10(Math.abs(value)))));
  return decimal(value, digits).replace(/(\.\d*?)0+$/, "$1").replace(/\.$/, "");
}

/** A span of time in words: "3 s", "5 min", "2 h", "4 days". */
export function spanWords(age_s: number): string {
  const rounded_s = Math.max(0, Math.round(age_s));
  if (rounded_s < 90) return `${rounded_s} s`;
  if (rounded_s < 90 * 60) return `${Math.round(rounded_s / 60)} min`;
  if (rounded_s < 36 * 3600) return `${Math.round(rounded_s / 3600)} h`;
  return `${Math.round(rounded_s / 86400)} days`;
}

/** How long something stands. */
export function standingWords(age_s: number): string {
  return age_s < 1 ? "just now" : `for ${spanWords(age_s)}`;
}

export function ageWords(age_s: number | null): string {
  if (age_s === null) return "never";
  return age_s < 1 ? "now" : `${spanWords(age_s)} ago`;
}
