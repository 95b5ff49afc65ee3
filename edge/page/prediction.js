// How long a pack will still do, by the model that runs on this box, or why it does not say.

import { el, number, words } from "./dom.js";

const NO_ANSWER = {
  no_model: "No model is installed on this box.",
  no_features: "Not enough use of this pack has been seen: the first full cycle with a charge at its end is still to come.",
  pack_facts: "The mapping does not say the pack's chemistry, cells in series and nominal Ah.",
  feature_error: "The pack could not be measured; the agent's log says why.",
  chemistry: "The model was not made for this pack's chemistry.",
  feature_schema: "The model was made for other features than this version measures.",
  model_restarting: "The model is being started anew.",
  not_finite: "The model's answer was not a number.",
  out_of_range: "The model's answer was physically impossible.",
};
const STEPS = {
  seen: "is on its way", fetched: "is on its way", verified: "is on its way", probed: "is about to start",
  activated: "has started and must prove itself", proven: "has proven itself", refused: "was refused", rolled_back: "was taken back",
};
const SCALES = [1000, 1500, 2000, 3000, 4000, 6000, 10000, 25000];
const RUL_WARNING = 500;
const RUL_CRITICAL = 100;
const RISK_WARNING = 0.3;
const RISK_CRITICAL = 0.6;

/** [strong, note, tone] of the model of this box. */
export function modelFact({ active, candidate, last, problem, inference }) {
  const notes = [];
  if (candidate) notes.push(`${candidate.model_id} is on its way`);
  else if (last) notes.push(`last step: ${words(last.step)}${last.reason ? ` (${words(last.reason)})` : ""}`);
  if (inference?.state === "running") notes.push(`process ${inference.pid}${inference.restarts ? `, started anew ${inference.restarts} times` : ""}`);
  if (inference?.problem) notes.push(inference.problem);
  if (problem) notes.push(problem);
  if (!active) return ["none", notes.join(", ") || "The cloud assigns one; edge.toml's trust_root says who may sign it.", "idle"];
  return [active.model_id, notes.join(", "), inference?.state === "running" && !inference.problem ? "good" : "warning"];
}

function percent(share) {
  if (share > 0 && share < 0.0005) return "< 0.1";
  return share < 1 && share > 0.9995 ? "> 99.9" : number(100 * share, 1);
}

function figure(packId, field, title, text, unit, tone, note) {
  return el("div", { class: "number" }, el("span", {}, title),
    el("b", { "data-pack": packId, "data-field": field, "data-tone": tone }, text, el("small", {}, unit)), note);
}

function gauge({ rul_cycles: middle, rul_cycles_lo: lo, rul_cycles_hi: hi }) {
  const scale = SCALES.find((most) => most >= 1.04 * hi) ?? hi;
  const at = (cycles) => `${Math.min(100, (100 * cycles) / scale)}%`;
  const part = (name, left, width) => {
    const node = el("i", { class: name });
    node.style.left = at(left);
    if (width != null) node.style.width = at(width);
    return node;
  };
  const tick = (cycles, text) => {
    const node = el("span", { "data-end": cycles === 0 ? "left" : cycles === scale ? "right" : null }, text);
    node.style.left = at(cycles);
    return node;
  };
  const said = `${number(middle, 0)} cycles, with 90 % between ${number(lo, 0)} and ${number(hi, 0)}`;
  return el("div", { class: "gauge", role: "img", "aria-label": said },
    el("div", { class: "track" }, part("zone critical", 0, RUL_CRITICAL), part("zone warning", RUL_CRITICAL, RUL_WARNING - RUL_CRITICAL),
      part("interval", lo, Math.max(hi - lo, scale / 150)), part("mark", middle)),
    el("div", { class: "ticks" }, tick(0, "0"), tick(RUL_WARNING, number(RUL_WARNING, 0)), tick(scale, `${number(scale, 0)} cycles`)));
}

function about(packId, said, model) {
  const simulated = model.inference?.simulated && said.model_id === model.active?.model_id;
  const { last } = model;
  const step = last && STEPS[last.step] && model.active?.model_id === said.model_id && ["activated", "proven"].includes(last.step) ? STEPS[last.step] : null;
  return el("p", { class: "muted" }, "Model ", el("b", { "data-pack": packId, "data-field": "model_id" }, said.model_id ?? "–"),
    step ? el("span", { "data-pack": packId, "data-field": "model_step" }, `, which ${step}`) : null,
    simulated ? el("span", {}, ", trained on simulated packs") : null, ". ",
    said.in_domain == null ? null : el("span", { "data-pack": packId, "data-field": "in_domain", "data-tone": said.in_domain ? null : "warning" },
      said.in_domain ? "The pack is like those that it has learned from." : "The pack is unlike those that it has learned from: take it with care."));
}

/** What the model says of a pack. */
export function life(pack, model) {
  const said = pack.estimate;
  const head = el("h3", {}, "Life left");
  const id = pack.pack_id;
  if (!said) return el("section", { class: "life" }, head, el("p", { class: "muted" }, "The model has not been asked yet."));
  if (said.rul_cycles == null) {
    const why = NO_ANSWER[said.reason] ?? `No answer: ${words(said.reason ?? "unknown")}.`;
    return el("section", { class: "life" }, head,
      el("p", { class: "no-answer", "data-pack": id, "data-field": "prediction_reason", "data-reason": said.reason }, why));
  }
  const interval = el("i", {}, "90 %: ",
    el("span", { "data-pack": id, "data-field": "rul_cycles_lo" }, number(said.rul_cycles_lo, 0)), " to ",
    el("span", { "data-pack": id, "data-field": "rul_cycles_hi" }, number(said.rul_cycles_hi, 0)));
  const rulTone = said.rul_cycles < RUL_CRITICAL ? "critical" : said.rul_cycles <= RUL_WARNING ? "warning" : null;
  const risk = said.failure_probability;
  const riskTone = risk > RISK_CRITICAL ? "critical" : risk >= RISK_WARNING ? "warning" : null;
  return el("section", { class: "life" }, head, el("div", { class: "lives" },
    figure(id, "rul_cycles", "Remaining useful life", number(said.rul_cycles, 0), "cycles", rulTone, interval),
    gauge(said),
    figure(id, "failure_probability", "Failure probability", percent(risk), "%", riskTone, el("i", {}, "end of life within 100 cycles"))),
  about(id, said, model));
}
