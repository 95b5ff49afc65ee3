/** One pack, live. */

import { Alarms } from "./alarms.ts";
import { ApiError, fetchModel, fetchOpenEvents, fetchPack, fetchSamples, serverNow_s } from "./api.ts";
import { Cells } from "./cells.ts";
import { CHART_FIELDS, Charts } from "./charts.ts";
import type { Connection } from "./connection.ts";
import { el, notice, setAttribute, setText } from "./dom.ts";
import { factPanels } from "./facts.ts";
import { fleetAddress } from "./fleet.ts";
import { packWords } from "./fleet_row.ts";
import { Headline } from "./headline.ts";
import { Live } from "./live.ts";
import { Prediction } from "./prediction.ts";
import { isOnTheWay } from "./prediction_words.ts";
import { StatusPill } from "./reading.ts";
import { type Estimate, type Pack, type PackEvent, type Sample, isNewer, isSimulated, isStale, seconds, statusOf } from "./records.ts";
import { ageWords, stateWords } from "./words.ts";
import type { View } from "./view.ts";

const TICK_MS = 1000;
const READ_AGAIN_S = 20; // the band, and events the stream did not bring
const READ_AGAIN_IN_DOUBT_S = 5;
const SAID_HOLDS_MS = 30_000; // beside Kafka the stream tells what the database knows only then

export class PackView implements View {
  readonly root: HTMLElement;
  readonly title: string;
  readonly #packId: string;
  readonly #connection: Connection;
  readonly #message = el("div", { class: "message" });
  readonly #state = el("span", { class: "state" });
  readonly #about = el("p", { class: "about" });
  readonly #age = el("span", { class: "age" });
  readonly #pill = new StatusPill();
  readonly #simulated = el("span", { class: "badge", hidden: "" }, "simulated");
  readonly #body = el("div", { class: "pack-body", hidden: "" });
  readonly #headline: Headline;
  readonly #alarms: Alarms;
  readonly #prediction: Prediction;
  readonly #cells: Cells;
  readonly #charts: Charts;
  readonly #facts: { root: HTMLElement; show(sample: Sample): void }[];
  readonly #timer: number;
  readonly #stop = new AbortController();
  #pack: Pack | null = null;
  #live: Live | null = null; // opened once the pack is known
  #early: Sample[] | null = null; // came while the history was being read
  #seeding: AbortController | null = null;
  #reading = false;
  #asked = false; // while a reading was on its way, whose answer may be older than the question
  #said: { event: PackEvent; at_ms: number }[] = []; // by the stream: an answer that was made before it, does not know
  #failed = false;
  #ticks = 0;
  #labelled: string | null = null; // the model whose label is shown

  constructor(packId: string, connection: Connection) {
    this.#packId = packId;
    this.#connection = connection;
    this.title = packId;
    this.#headline = new Headline(packId);
    this.#alarms = new Alarms(packId);
    this.#prediction = new Prediction(packId);
    this.#cells = new Cells(packId);
    this.#charts = new Charts(() => void this.#seed());
    this.#facts = factPanels(packId);
    this.#state.dataset["pack"] = packId;
    this.#state.dataset["field"] = "state";
    const name = el("div", { class: "pack-name" }, el("h1", {}, packId), this.#pill.root, this.#simulated, this.#state, this.#age);
    const back = el("a", { class: "back", href: fleetAddress() }, "All packs");
    const facts = el("div", { class: "fact-panels" }, ...this.#facts.map((facts) => facts.root));
    const [headline, alarms, outlook] = [this.#headline.root, this.#alarms.root, this.#prediction.root];
    this.#body.append(headline, alarms, outlook, this.#charts.root, this.#cells.root, facts);
    this.root = el("article", { class: "one-pack" }, back, name, this.#about, this.#message, this.#body);
    this.#message.append(notice("empty", "Reading the pack…"));
    connection.link = "connecting";
    this.#timer = window.setInterval(() => this.#tick(), TICK_MS);
    void this.#read();
  }

  close(): void {
    this.#stop.abort();
    this.#seeding?.abort();
    this.#live?.close();
    this.#charts.close();
    window.clearInterval(this.#timer);
  }

  async #read(): Promise<void> {
    this.#asked = this.#reading;
    if (this.#reading) return;
    this.#reading = true;
    this.#said = this.#said.filter(({ at_ms }) => performance.now() - at_ms < SAID_HOLDS_MS);
    try {
      const [pack, events] = await Promise.all([fetchPack(this.#packId), fetchOpenEvents(this.#packId)]);
      if (this.#stop.signal.aborted) return;
      const known = this.#pack;
      if (known && (seconds(known.t) ?? 0) > (seconds(pack.t) ?? 0)) {
        pack.t = known.t; // the stream was faster
        pack.latest = known.latest;
      }
      if (known?.estimate && isNewer(known.estimate, pack.estimate)) pack.estimate = known.estimate;
      this.#failed = false;
      this.#pack = pack;
      this.#alarms.replace([...events, ...this.#said.map(({ event }) => event)]);
      const silent = notice("empty", "This pack is known, but it has not sent a sample yet.");
      this.#message.replaceChildren(...(pack.latest ? [] : [silent]));
      this.#show();
      this.#live ??= this.#open();
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.#failed = true;
      this.#explain(error);
    } finally {
      this.#reading = false;
      if (this.#asked && !this.#stop.signal.aborted) void this.#read();
    }
  }

  #open(): Live {
    return new Live(this.#packId, {
      sample: (sample) => this.#take(sample),
      estimate: (estimate) => this.#takeEstimate(estimate),
      event: (event) => this.#takeEvent(event),
      link: (link) => (this.#connection.link = link),
      opened: () => {
        this.#said = []; // what came after it may have been missed
        void this.#read().then(() => this.#seed());
      },
    });
  }

  #explain(error: ApiError): void {
    const unknown = error.status === 404;
    if (!this.#live) this.#connection.link = unknown ? "live" : "offline";
    const text = unknown ? `No pack is called ${this.#packId}. ` : error.message;
    const more = unknown ? [el("a", { href: "#/" }, "See all packs")] : [];
    this.#message.replaceChildren(notice("error", text, ...more));
  }

  /** Reads the history of the chosen range and joins it with what came live meanwhile. */
  async #seed(): Promise<void> {
    if (this.#stop.signal.aborted) return;
    this.#seeding?.abort();
    const seeding = new AbortController();
    this.#seeding = seeding;
    const range = this.#charts.range;
    const now_s = serverNow_s();
    const last_s = seconds(this.#pack?.t);
    if (last_s === null) return;
    this.#early = [];
    const to_s = isStale(this.#pack!, now_s) || last_s > now_s ? last_s : now_s;
    const step = "step_s" in range ? { step_s: range.step_s } : {};
    const span = { from_s: to_s - range.span_s, to_s: to_s + 1, ...step };
    const query = { ...span, fields: CHART_FIELDS, signal: seeding.signal };
    try {
      const samples = await fetchSamples(this.#packId, query);
      this.#charts.seed([...samples, ...this.#early]);
      this.#early = null;
      this.#charts.draw(serverNow_s());
    } catch (error) {
      if (seeding.signal.aborted) return;
      this.#early = null;
      if (!(error instanceof ApiError)) throw error;
      this.#explain(error);
    }
  }

  #take(sample: Sample): void {
    const t_s = seconds(sample.t);
    if (t_s === null || sample.pack_id !== this.#packId) return;
    this.#early?.push(sample);
    this.#charts.add(sample);
    if (!this.#pack || t_s < (seconds(this.#pack.t) ?? 0)) return; // backlog: for the charts only
    if (!this.#pack.latest) this.#message.replaceChildren();
    this.#pack.t = sample.t ?? null;
    this.#pack.latest = sample;
    this.#show();
    this.#charts.draw(serverNow_s());
  }

  #takeEstimate(estimate: Estimate): void {
    const pack = this.#pack;
    if (!pack || estimate.pack_id !== this.#packId || !isNewer(estimate, pack.estimate)) return; // backlog
    const changed = pack.estimate?.model_id !== estimate.model_id;
    pack.estimate = estimate;
    this.#showPrediction();
    if (changed) void this.#read(); // the device has reported how it came to that
  }

  #takeEvent(event: PackEvent): void {
    this.#said.push({ event, at_ms: performance.now() });
    this.#alarms.take(event);
  }

  #showPrediction(): void {
    const pack = this.#pack!;
    this.#prediction.show(pack);
    this.#prediction.tick(serverNow_s());
    const model_id = pack.estimate?.model_id ?? null;
    if (model_id === this.#labelled) return;
    this.#labelled = model_id;
    this.#prediction.label(false);
    if (model_id !== null) void this.#label(model_id);
  }

  async #label(model_id: string): Promise<void> {
    try {
      const model = await fetchModel(model_id, this.#stop.signal);
      if (this.#labelled === model_id) this.#prediction.label(model.simulated);
    } catch (error) {
      const unknown = error instanceof ApiError && error.status === 404; // made elsewhere: nothing is known of it
      if (this.#labelled === model_id && !unknown) this.#labelled = null; // asked again with the next prediction
    }
  }

  #show(): void {
    const pack = this.#pack;
    if (!pack) return;
    const words = [packWords(pack), pack.device ? `sent by ${pack.device}` : ""].filter(Boolean);
    setText(this.#about, words.join(" · "));
    setText(this.#state, stateWords(pack.latest));
    this.#pill.show(statusOf(pack));
    setAttribute(this.#simulated, "hidden", !isSimulated(pack));
    setAttribute(this.#body, "hidden", !pack.latest);
    if (!pack.latest) return;
    this.#headline.show(pack.latest);
    this.#alarms.show(pack.latest);
    this.#showPrediction();
    this.#cells.show(pack.latest);
    for (const facts of this.#facts) facts.show(pack.latest);
    this.#showAge(serverNow_s());
  }

  #showAge(now_s: number): void {
    const last_s = seconds(this.#pack?.t);
    const age_s = last_s === null ? null : now_s - last_s;
    setText(this.#age, this.#pack ? ageWords(age_s) : "");
    setAttribute(this.root, "data-stale", !this.#pack || isStale(this.#pack, now_s));
    this.#connection.show(last_s, this.#pack?.stale_after_s);
  }

  #tick(): void {
    const now_s = serverNow_s();
    this.#ticks += 1;
    this.#showAge(now_s);
    this.#charts.draw(now_s);
    this.#alarms.draw();
    this.#prediction.tick(now_s);
    const pack = this.#pack;
    const doubtful = this.#failed || !pack || isStale(pack, now_s) || isOnTheWay(pack.model);
    const due = this.#ticks % (doubtful ? READ_AGAIN_IN_DOUBT_S : READ_AGAIN_S) === 0;
    if (due && !this.#reading) void this.#read();
  }
}
