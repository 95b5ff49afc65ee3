/** The API's records, with Sample's names and units: current > 0 charges, SoC and SoH are 0..1, null = not known. */

export type PackState = "off" | "park" | "drive" | "charge_ac" | "charge_dc" | "fault";
export type Status = "good" | "warning" | "critical";
export type Reading = number | null | undefined;

/** Scalar numbers of a Sample that the page shows. */
export type NumberField =
  | "pack_v" | "current_a" | "soc_bms" | "soh_bms" | "pack_v_min" | "pack_v_max" | "current_a_min" | "current_a_max"
  | "charge_limit_a" | "discharge_limit_a" | "insulation_kohm" | "ambient_c" | "coolant_in_c" | "coolant_out_c"
  | "speed_kmh" | "odometer_km" | "throughput_ah" | "energy_kwh" | "cycles";
export type SwitchField = "contactor_main" | "contactor_precharge" | "charge_mos" | "discharge_mos";

/** One pack at one instant; a field left out is absent. */
export type Sample = { [name in NumberField]?: number | null } & { [name in SwitchField]?: boolean | null } & {
  pack_id: string;
  t?: string | null;
  state?: PackState | null;
  cell_v?: (number | null)[] | null;
  temp_c?: (number | null)[] | null;
  balancing?: number | string | null; // bit i = cell i; text (decimal or 0x..) where 53 bits are too few
  alarms?: string[] | null; // `code` or `code:warning`
  quality?: Record<string, string> | null; // field -> why it is null
  extra?: Record<string, number | null> | null;
};

/** What the models say of a pack; null = no answer, and `reason` says why. */
export interface Estimate {
  pack_id?: string;
  t: string | null;
  rul_cycles: number | null;
  rul_cycles_lo: number | null;
  rul_cycles_hi: number | null;
  failure_probability: number | null;
  in_domain: boolean | null;
  model_id: string | null;
  reason: string | null;
}

export type ModelStep =
  | "seen" | "fetched" | "verified" | "probed" | "activated" | "proven" | "refused" | "rolled_back";

/** What a device last reported of a model. */
export interface ModelReport {
  model_id: string;
  counter: number;
  step: ModelStep;
  reason: string | null;
  t: string | null;
}

export interface Pack {
  pack_id: string;
  device: string | null;
  chemistry: string | null;
  series: number | null;
  parallel: number | null;
  nominal_ah: number | null;
  nominal_v: number | null;
  vehicle: string | null;
  fleet: string | null;
  tags: string[] | Record<string, string> | null;
  t: string | null;
  stale_after_s: number; // how old the newest Sample may be: a device in economy mode sends once a minute
  latest: Sample | null;
  status: Status | null;
  estimate: Estimate | null;
  model: ModelReport | null;
  desired: string | null; // the model that the device is told to run
}

export interface PackEvent {
  id: string;
  code: string;
  severity: "info" | "warning" | "critical";
  pack_id: string;
  cell?: number | null;
  value?: number | null;
  threshold?: number | null;
  since?: string | null;
  cleared?: string | null;
}

/** While nothing is known of how often the device sends. */
export const STALE_AFTER_S = 15;
/** The tag that says so. */
export const SIMULATED = "simulated";
/** A prediction that is so much older than the newest Sample answers no more; the API says the same. */
export const PREDICTION_HOLDS_S = 300;

/** Seconds since 1970 of an ISO time, or null. */
export function seconds(iso: string | null | undefined): number | null {
  const ms = iso ? Date.parse(iso) : NaN;
  return Number.isFinite(ms) ? ms / 1000 : null;
}

function known(values: readonly (number | null)[] | null | undefined): number[] {
  return (values ?? []).filter((value): value is number => value !== null);
}

export function hottest_c(sample: Sample): number | null {
  const temps = known(sample.temp_c);
  return temps.length ? Math.max(...temps) : null;
}

export function spread_mv(sample: Sample): number | null {
  const cells = known(sample.cell_v);
  return cells.length ? (Math.max(...cells) - Math.min(...cells)) * 1000 : null;
}

export function power_kw(sample: Sample): number | null {
  const { pack_v, current_a } = sample;
  return pack_v == null || current_a == null ? null : (pack_v * current_a) / 1000;
}

export interface CellFigures {
  median_v: number;
  min: number; // position of the lowest cell
  max: number; // position of the highest cell
  deviation_mv: (number | null)[]; // by position, against the median
}

/** How the measured cells lie against each other; null when none is measured. */
export function cellFigures(cell_v: readonly (number | null)[]): CellFigures | null {
  const sorted = known(cell_v).sort((a, b) => a - b);
  if (!sorted.length) return null;
  const middle = sorted.length >> 1;
  const median_v = sorted.length % 2 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
  return {
    median_v,
    min: cell_v.indexOf(sorted[0]!),
    max: cell_v.indexOf(sorted[sorted.length - 1]!),
    deviation_mv: cell_v.map((value) => (value === null ? null : (value - median_v) * 1000)),
  };
}

/** Positions of the cells that are being balanced. */
export function balancingCells(bits: number | string | null | undefined): Set<number> {
  const cells = new Set<number>();
  let rest = bits == null ? 0n : BigInt(bits);
  for (let cell = 0; rest > 0n; cell += 1, rest >>= 1n) if (rest & 1n) cells.add(cell);
  return cells;
}

/** The prediction that holds for the newest Sample; without numbers and with a reason when there is none. */
export function prediction(pack: Pack): Estimate {
  const none = { rul_cycles: null, rul_cycles_lo: null, rul_cycles_hi: null, failure_probability: null, in_domain: null };
  const { estimate } = pack;
  if (!estimate) return { ...none, t: null, model_id: null, reason: "no_model" };
  const age_s = (seconds(pack.t) ?? -Infinity) - (seconds(estimate.t) ?? -Infinity);
  if (age_s > PREDICTION_HOLDS_S) return { ...none, t: estimate.t, model_id: estimate.model_id, reason: "stale" };
  const reason = estimate.rul_cycles === null ? estimate.reason ?? "no_model" : null;
  return { ...estimate, reason };
}

/** Whether the newer of two records is `other`; one without a time never is. */
export function isNewer(other: { t?: string | null }, known: { t?: string | null } | null): boolean {
  return (seconds(other.t) ?? -Infinity) > (seconds(known?.t) ?? -Infinity);
}

/** Whether the pack has been silent for longer than its device should be. */
export function isStale(pack: Pack, now_s: number): boolean {
  const last_s = seconds(pack.t);
  return last_s === null || now_s - last_s > pack.stale_after_s;
}

/** Whether what the pack sends is simulated, not measured. */
export function isSimulated(pack: Pack): boolean {
  return tagsOf(pack).includes(SIMULATED);
}

/** The worse of what the server judged and what the pack itself alarms right now. */
export function statusOf(pack: Pack): Status | null {
  const alarms = pack.latest?.alarms ?? [];
  if (pack.status === "critical" || alarms.some((alarm) => !alarm.endsWith(":warning"))) return "critical";
  return alarms.length ? "warning" : pack.status;
}

/** What people call the pack beside its name; on plain lists and on name-to-value tags alike. */
export function tagsOf(pack: Pack): string[] {
  return Object.values(pack.tags ?? {});
}
