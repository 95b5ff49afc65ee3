/** What a prediction says, why there is none, and where a car's model stands, in words. */

import type { Estimate, ModelReport, ModelStep } from "./records.ts";
import { decimal } from "./words.ts";

/** Why there is no prediction: in a few words for lists, and in a sentence. */
const NO_ANSWER: Record<string, [short: string, sentence: string]> = {
  no_model: ["no model yet", "No model runs in this car yet."],
  no_features: ["too early", "The car has not seen enough use of this pack yet to say."],
  pack_facts: ["facts missing", "The agent's mapping does not say this pack's chemistry, cells in series or capacity."],
  feature_error: ["no features", "The agent could not measure this pack; its log says why. A restart tries again."],
  chemistry: ["other chemistry", "The model in this car was not made for this pack's chemistry."],
  feature_schema: ["model unfit", "The model needs other features than the car's software computes."],
  model_restarting: ["starting", "The model in this car is being started."],
  not_finite: ["no number", "The model's last answer was not a number, so it does not count."],
  out_of_range: ["impossible", "The model's last answer was physically impossible, so it does not count."],
  stale: ["stale", "The car goes on sending samples, but no predictions."],
};

/** Why a device refused a model or went back from it. */
const WHY: Record<string, string> = {
  target_hash: "its bytes are not those that were signed",
  signature: "its signature is not valid",
  manifest: "its contents are not what its manifest says",
  counter: "it is older than what has already run there",
  expired: "the signatures of the release have expired",
  feature_schema: "it needs other features than the car's software computes",
  chemistry: "it was not made for the chemistry of these packs",
  hardware: "it was not made for this hardware",
  not_finite: "its answers were not numbers",
  golden: "it does not give the answers that it was released with",
  out_of_range: "its answers were physically impossible",
  too_large: "it is too large",
  timeout: "it took too long to answer",
  crash: "it crashed",
  clock: "the car's clock cannot be trusted",
  operator: "someone at the car asked for it",
};

const STEPS: Record<ModelStep, string> = {
  seen: "is on offer; the car fetches it next.",
  fetched: "has been fetched; its signature is checked next.",
  verified: "is signed as it should be; it is tried out next.",
  probed: "has passed its trial; it is about to start.",
  activated: "has just started and has yet to prove itself.",
  proven: "runs and has proven itself.",
  refused: "was refused",
  rolled_back: "was taken back",
};

/** Steps after which nothing follows by itself. */
const SETTLED: ReadonlySet<string> = new Set(["proven", "refused", "rolled_back"]);

const said = (code: string): string => code.replaceAll("_", " ");

export function shortReason(reason: string | null): string {
  return reason === null ? "" : NO_ANSWER[reason]?.[0] ?? said(reason);
}

export function reasonSentence(reason: string | null): string {
  return reason === null ? "" : NO_ANSWER[reason]?.[1] ?? `The car gives a reason: ${said(reason)}.`;
}

/** Where the car's model stands; `running` = the model whose answers come, `desired` = the one that it is told to run. */
export function modelSentence(report: ModelReport | null, running: string | null, desired: string | null): string {
  const news = desired !== null && desired !== running && desired !== report?.model_id;
  const next = news ? ` ${desired} is assigned; the car has not said anything of it yet.` : "";
  return (reportSentence(report, running) + next).trim();
}

function reportSentence(report: ModelReport | null, running: string | null): string {
  if (!report) return running ? `${running} answers.` : "The car has reported no model yet.";
  const { model_id, step, reason } = report;
  const what = `${model_id} ${STEPS[step] ?? said(step)}`;
  if (step !== "refused" && step !== "rolled_back") return what;
  const why = reason ? `: ${WHY[reason] ?? said(reason)}` : "";
  const after = running && running !== model_id ? ` ${running} goes on.` : "";
  return `${what}${why}.${after}`;
}

export function stepName(report: ModelReport | null): string {
  return report ? said(report.step) : "none";
}

/** How it looks: good, warning, critical, or null while it is on its way. */
export function stepLook(report: ModelReport | null): "good" | "warning" | "critical" | null {
  if (report?.step === "proven") return "good";
  if (report?.step === "rolled_back") return "critical";
  return report?.step === "refused" ? "warning" : null;
}

/** Whether the device is in the middle of changing its model. */
export function isOnTheWay(report: ModelReport | null): boolean {
  return report !== null && !SETTLED.has(report.step);
}

/** A probability in percent, without its unit; never a 0 or 100 that it is not. */
export function percentText(probability: number | null): string | null {
  if (probability === null) return null;
  if (probability > 0 && probability < 0.0005) return "<\u20090.1";
  if (probability < 1 && probability > 0.9995) return ">\u200999.9";
  return decimal(probability * 100, 1);
}

export function cyclesText(cycles: number | null): string | null {
  return cycles === null ? null : decimal(cycles, 0);
}

/** "480 cycles, 90 % between 400 and 600", for who cannot see the gauge. */
export function lifeWords({ rul_cycles, rul_cycles_lo, rul_cycles_hi }: Estimate): string {
  if (rul_cycles === null) return "no prediction";
  const interval = rul_cycles_lo === null || rul_cycles_hi === null ? "" : `, 90 % between ${cyclesText(rul_cycles_lo)} and ${cyclesText(rul_cycles_hi)}`;
  return `${cyclesText(rul_cycles)} cycles${interval}`;
}
