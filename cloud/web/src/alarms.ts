/** What a person should know now: the alarms that the pack sends, and the Events that are still open. */

import { serverNow_s } from "./api.ts";
import { el, panel } from "./dom.ts";
import { type PackEvent, type Sample, seconds } from "./records.ts";
import { codeWords, eventWords, standingWords } from "./words.ts";

interface Line {
  severity: string;
  text: string;
  field: string;
  since_s: number | null;
}

const SEVERITIES = ["critical", "warning", "info"];

/** Alarms and open Events as lines, the worst first. */
export function alarmLines(alarms: readonly string[], events: Iterable<PackEvent>): Line[] {
  const lines: Line[] = alarms.map((alarm) => {
    const [code = "", level] = alarm.split(":");
    return { severity: level ?? "critical", text: codeWords(code), field: "alarms", since_s: null };
  });
  for (const event of events) {
    if (event.cleared) continue;
    lines.push({ severity: event.severity, text: eventWords(event), field: "events", since_s: seconds(event.since) });
  }
  return lines.sort((a, b) => SEVERITIES.indexOf(a.severity) - SEVERITIES.indexOf(b.severity));
}

export class Alarms {
  readonly root: HTMLElement;
  readonly #packId: string;
  readonly #list = el("ul", { class: "alarms" });
  readonly #events = new Map<string, PackEvent>();
  #alarms: readonly string[] = [];
  #known = false;
  #shown = "";

  constructor(packId: string) {
    this.#packId = packId;
    this.root = panel("alarms", "Alarms and events", null, this.#list);
  }

  show(sample: Sample): void {
    this.#alarms = sample.alarms ?? [];
    this.#known = sample.alarms != null;
    this.draw();
  }

  /** All open Events, as the server knows them. */
  replace(events: readonly PackEvent[]): void {
    this.#events.clear();
    for (const event of events) this.#events.set(event.id, event);
    this.draw();
  }

  /** One Event, raised or cleared just now. */
  take(event: PackEvent): void {
    this.#events.set(event.id, event);
    this.draw();
  }

  draw(): void {
    const now_s = serverNow_s();
    const lines = alarmLines(this.#alarms, this.#events.values()).map((line) => ({
      ...line,
      age: line.since_s === null ? "" : standingWords(now_s - line.since_s),
    }));
    const quiet = this.#known ? "No alarm, nothing open." : "This pack reports no alarms; nothing is open.";
    const shown = JSON.stringify([lines, quiet]);
    if (shown === this.#shown) return;
    this.#shown = shown;
    const items = lines.map(({ severity, text, field, age }) => {
      const when = age ? el("span", { class: "age" }, age) : null;
      const words = el("span", { "data-pack": this.#packId, "data-field": field }, text);
      return el("li", { "data-severity": severity }, el("b", {}, severity), words, when);
    });
    this.#list.replaceChildren(...(items.length ? items : [el("li", { class: "quiet" }, quiet)]));
  }
}
