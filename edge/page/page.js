// The agent's own page: asks /status.json once a second and shows just that. No network beyond this box is needed.

import { el, number, words } from "./dom.js";
import { life, modelFact } from "./prediction.js";

const PERIOD_MS = 1000;
const STALE_S = 5;
const OUTLIER_MV = 20;
const LEAST_SPAN_V = 0.02;

const NAMES = {
  charge_limit_a: ["Charge limit", "A", 1], discharge_limit_a: ["Discharge limit", "A", 1],
  insulation_kohm: ["Insulation", "kΩ", 0], ambient_c: ["Ambient", "°C", 1], coolant_in_c: ["Coolant in", "°C", 1],
  coolant_out_c: ["Coolant out", "°C", 1], speed_kmh: ["Speed", "km/h", 1], odometer_km: ["Odometer", "km", 1],
  throughput_ah: ["Charge throughput", "Ah", 1], energy_kwh: ["Energy throughput", "kWh", 1], cycles: ["Cycles", "", 1],
  soh_bms: ["State of health (BMS)", "%", 1], contactor_main: ["Main contactor"],
  contactor_precharge: ["Precharge contactor"], charge_mos: ["Charging enabled"], discharge_mos: ["Discharging enabled"],
};
const STATES = { off: "off", park: "parked", drive: "driving", charge_ac: "AC charging", charge_dc: "DC charging", fault: "fault" };
const REASONS = {
  absent: "never seen", stale: "too old", invalid: "not a number", out_of_range: "out of range",
  short_frame: "frame too short", not_supported: "not supported", implausible: "implausible", stuck: "stuck",
};
const COUNTS = [
  ["acquired", "acquired"], ["stored", "stored"], ["acked", "acknowledged"], ["pending", "pending"],
  ["refused", "refused", "critical"], ["rejected", "not stored", "critical"], ["evicted", "evicted", "warning"],
  ["lost", "lost", "critical"], ["filtered", "filtered"],
];

const byId = (id) => document.getElementById(id);
const mib = (bytes) => (bytes < 1 << 20 ? `${number(bytes / 1024, 0)} KiB` : `${number(bytes / (1 << 20), 1)} MiB`);

function span(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return seconds < 172800 ? `${number(seconds / 3600, 1)} h` : `${number(seconds / 86400, 1)} days`;
}

function fact(title, strong, note, tone) {
  return el("div", { class: "fact", "data-tone": tone }, el("h2", {}, title), el("strong", {}, strong), el("p", { class: "muted" }, note));
}

function uplinkFact(uplink) {
  if (!uplink) return fact("Uplink", "none", "No cloud is set: the outbox keeps the newest samples.", "idle");
  if (uplink.problem) return fact("Uplink", "waiting", `${uplink.problem}. Nothing is lost, it tries again.`, "warning");
  if (!uplink.connected) return fact("Uplink", "connecting", uplink.url, "idle");
  const latency = uplink.latency_s == null ? "" : `, answers in ${number(uplink.latency_s * 1000, 0)} ms`;
  return fact("Uplink", "connected", `${uplink.url}, ${uplink.mode} mode${latency}`, "good");
}

function clockFact(clock) {
  if (!clock.trusted) return fact("Clock", "not trusted yet", "Samples are kept and dated once the time is known.", "warning");
  const from = { kernel: "the kernel's synchronised clock", cloud: "the cloud's answers", system: "this machine's clock" };
  return fact("Clock", `${new Date(clock.t_ns / 1e6).toISOString().slice(0, 19).replace("T", " ")} UTC`, `from ${from[clock.source] ?? clock.source}`, "good");
}

function storeFact(outbox, samples) {
  if (outbox.problem) return fact("Storage", "cannot store", outbox.problem, "critical");
  const used = outbox.hot_bytes + outbox.cold_bytes;
  const age = samples.pending && outbox.oldest_age_s != null ? `, oldest ${span(outbox.oldest_age_s)}` : "";
  const tone = used > 0.8 * outbox.max_bytes ? "warning" : "good";
  return fact("Storage", `${number(samples.pending, 0)} pending`, `${mib(used)} of ${mib(outbox.max_bytes)} used${age}`, tone);
}

function bigNumber(packId, field, title, value, unit, digits, note) {
  const known = value != null;
  const text = known ? number(value, digits) : "–";
  return el("div", { class: "number" }, el("span", {}, title),
    el("b", { "data-pack": packId, "data-field": field, class: known ? null : "absent" }, text, known ? el("small", {}, unit) : null),
    el("i", {}, note ?? ""));
}

function current(sample) {
  const amps = sample.current_a;
  if (amps == null) return why(sample, "current_a");
  const flow = Math.abs(amps) < 0.05 ? "at rest" : amps > 0 ? "charging" : "discharging";
  const { current_a_min: lo, current_a_max: hi } = sample;
  return lo == null || hi - lo < 0.5 ? flow : `${flow}, ${number(lo, 0)} to ${number(hi, 0)}`;
}

const why = (sample, key) => REASONS[sample.quality[key]] ?? "not measured";

function numbers(pack, sample) {
  const temps = sample.temp_c.filter((temp) => temp != null);
  const hottest = temps.length ? Math.max(...temps) : null;
  const percent = sample.soc_bms == null ? null : 100 * sample.soc_bms;
  const power = sample.pack_v == null || sample.current_a == null ? null : (sample.pack_v * sample.current_a) / 1000;
  const id = pack.pack_id;
  return el("div", { class: "numbers" },
    bigNumber(id, "soc_bms", "State of charge", percent, "%", 1, percent == null ? why(sample, "soc_bms") : "as the BMS says"),
    bigNumber(id, "pack_v", "Pack voltage", sample.pack_v, "V", 1, sample.pack_v == null ? why(sample, "pack_v") : power == null ? "" : `${number(Math.abs(power), 1)} kW`),
    bigNumber(id, "current_a", "Current", sample.current_a, "A", 1, current(sample)),
    bigNumber(id, "temp_c", "Hottest sensor", hottest, "°C", 1, temps.length ? `coldest ${number(Math.min(...temps), 1)}` : "not measured"));
}

function cells(pack, sample) {
  const volts = sample.cell_v;
  const known = volts.filter((volt) => volt != null);
  if (!volts.length) return [];
  const head = (note) => el("div", { class: "cells-head" }, el("h3", {}, `${volts.length} cells`), el("p", { class: "muted" }, note));
  if (!known.length) return [head(`No cell voltages: ${why(sample, "cell_v[0]")}.`)];
  const sorted = [...known].sort((a, b) => a - b);
  const median = sorted[sorted.length >> 1];
  const [lo, hi] = [sorted[0], sorted.at(-1)];
  const half = Math.max(hi - median, median - lo, LEAST_SPAN_V / 2);
  const balancing = new Set(pack.balancing_cells ?? []);
  const bars = volts.map((volt, cell) => {
    const off = volt == null ? 0 : 1000 * (volt - median);
    const mark = off >= OUTLIER_MV || (volt === hi && off > 0) ? "high" : off <= -OUTLIER_MV || (volt === lo && off < 0) ? "low" : null;
    const said = volt == null ? why(sample, `cell_v[${cell}]`) : `${number(volt, 3)} V, ${off > 0 ? "+" : ""}${number(off, 0)} mV from the median`;
    const bar = el("i", { "data-pack": pack.pack_id, "data-cell": cell, "data-field": "cell_v", "data-mark": mark,
      "data-missing": volt == null ? "" : null, "data-balancing": balancing.has(cell) ? "" : null,
      title: `Cell ${cell}: ${said}${balancing.has(cell) ? ", balancing" : ""}` });
    bar.style.height = volt == null ? "100%" : `${50 + (45 * (volt - median)) / half}%`;
    return bar;
  });
  const note = `${number(lo, 3)} to ${number(hi, 3)} V, median ${number(median, 3)} V, spread ${number(1000 * (hi - lo), 0)} mV`;
  return [head(note), el("div", { class: "cells", role: "img", "aria-label": note }, ...bars),
    el("p", { class: "key" }, el("span", { class: "high" }, `highest, or ${OUTLIER_MV} mV above`), el("span", { class: "low" }, `lowest, or ${OUTLIER_MV} mV below`),
      balancing.size ? el("span", { class: "balance" }, `balancing (${balancing.size})`) : null)];
}

function detailRows(pack, sample) {
  const row = (field, title, text, missing) => el("div", { class: "row" }, el("span", {}, title),
    el("span", { "data-pack": pack.pack_id, "data-field": field, class: missing ? "absent" : null }, text));
  const rows = Object.entries(NAMES).filter(([field]) => field in sample).map(([field, [title, unit, digits]]) => {
    const value = sample[field];
    if (value == null) return row(field, title, why(sample, field), true);
    if (typeof value === "boolean") return row(field, title, field.startsWith("contactor") ? (value ? "closed" : "open") : value ? "yes" : "no");
    return row(field, title, `${number(field === "soh_bms" ? 100 * value : value, digits)} ${unit}`.trim());
  });
  const temps = sample.temp_c.map((temp, i) => row(`temp_c[${i}]`, `Temperature ${i}`, temp == null ? why(sample, `temp_c[${i}]`) : `${number(temp, 1)} °C`, temp == null));
  const extras = Object.entries(sample.extra).map(([name, value]) => row(`extra.${name}`, words(name), value == null ? why(sample, `extra.${name}`) : `${+value.toPrecision(6)} ${pack.units[name] ?? ""}`.trim(), value == null));
  return [...rows, ...temps, ...extras];
}

function sourceNote({ source, pack }) {
  const make = [pack.chemistry?.toUpperCase(), pack.series && `${pack.series} in series`, pack.nominal_ah && `${pack.nominal_ah} Ah`].filter(Boolean);
  const errors = Object.entries(source.errors).map(([reason, count]) => `${number(count, 0)} × ${words(reason)}`);
  const bus = source.problem ? source.problem : `${number(source.frames_per_s, 0)} frames/s on ${source.interface} ${source.channel.split("/").at(-1)}`;
  const told = Object.entries(source.error_frames ?? {}).map(([kind, count]) => `${number(count, 0)} × ${words(kind)}`);
  return [...make, bus, errors.length ? `not understood: ${errors.join(", ")}` : null, source.drops ? `${number(source.drops, 0)} frames lost` : null,
    told.length ? `bus errors: ${told.join(", ")}` : null, ...(source.notes ?? [])].filter(Boolean).join(" · ");
}

function packPanel(pack, model, isOpen) {
  const { sample, source } = pack;
  const missing = sample ? Object.keys(sample.quality).length : 0;
  const [tone, text] = source.state === "down" ? ["critical", "bus down"] : source.state === "silent" ? ["warning", "bus silent"] : ["good", "live"];
  const panel = el("article", { class: "panel", "data-pack": pack.pack_id, "data-stale": pack.age_s > STALE_S || source.state !== "live" ? "" : null },
    el("div", { class: "pack-head" }, el("h2", {}, pack.pack_id), el("span", { class: "chip", "data-tone": tone }, text),
      sample?.state ? el("span", { class: "chip", "data-field": "state", "data-tone": sample.state === "fault" ? "critical" : "idle" }, STATES[sample.state]) : null,
      pack.simulated_past ? el("span", { class: "chip", title: "What this box knows of the time before it was made up by a simulation." }, "simulated past") : null,
      el("p", { class: "muted" }, sourceNote(pack))));
  if (!sample) {
    panel.append(life(pack, model), el("p", { class: "muted" }, source.problem ? "No frames yet." : "Waiting for the first frames that the mapping knows."));
    return panel;
  }
  const alarms = sample.alarms.map((alarm) => {
    const [code, level] = alarm.split(":");
    return el("span", { class: "chip", "data-alarm": alarm, "data-tone": level ? "warning" : "critical" }, words(code));
  });
  const details = el("details", {}, el("summary", {}, missing ? `All values (${missing} missing)` : "All values"), el("div", { class: "rows" }, ...detailRows(pack, sample)));
  details.open = isOpen;
  panel.append(numbers(pack, sample), el("div", { class: "alarms" }, ...alarms), life(pack, model), ...cells(pack, sample), details);
  return panel;
}

function show(status) {
  const { samples, outbox } = status;
  byId("device").textContent = status.device;
  document.title = `${status.device} · packtwin agent`;
  byId("about").textContent = `packtwin ${status.version}, up ${span(status.uptime_s)}, a sample every ${status.sample_s} s, a prediction every ${status.prediction_s} s`;
  byId("box").replaceChildren(uplinkFact(status.uplink), clockFact(status.clock), storeFact(outbox, samples), fact("Model", ...modelFact(status.model)));
  const packs = byId("packs");
  const opened = new Set([...packs.querySelectorAll("article")].filter((panel) => panel.querySelector("details[open]")).map((panel) => panel.dataset.pack));
  const focused = document.activeElement?.closest?.("article")?.dataset.pack;
  packs.replaceChildren(...status.packs.map((pack) => packPanel(pack, status.model, opened.has(pack.pack_id))));
  if (focused) packs.querySelector(`article[data-pack="${CSS.escape(focused)}"] summary`)?.focus();
  byId("books-note").textContent = samples.pending ? `${number(samples.pending, 0)} samples wait for the cloud's receipt.` : "Every sample that was stored is settled.";
  byId("flow").replaceChildren(...COUNTS.map(([name, title, tone]) =>
    el("div", { "data-tone": samples[name] ? tone : null }, el("span", {}, title), el("b", { "data-field": `packtwin_samples_${name}` }, number(samples[name], 0)))));
}

function say(text, tone, notice = "") {
  byId("link").textContent = text;
  byId("link").dataset.tone = tone;
  byId("notice").textContent = notice;
  byId("notice").hidden = !notice;
}

async function refresh() {
  try {
    const answer = await fetch("status.json", { signal: AbortSignal.timeout(4000) });
    if (!answer.ok) throw new Error(`it answered ${answer.status}`);
    show(await answer.json());
    say("live", "good");
  } catch (error) {
    say("no answer", "critical", `The agent does not answer (${error.message}): what is below is old. Is it running?`);
  }
  setTimeout(refresh, PERIOD_MS);
}

refresh();
