/** The packs of one page of the list. The server chooses and orders; a small fleet is streamed, a large one asked for. */

import { ApiError, type PacksPage, fetchPacks, fetchSamples, serverNow_s } from "./api.ts";
import type { Connection } from "./connection.ts";
import { el, notice, setAttribute } from "./dom.ts";
import { type Choice, addressOf, choiceOf, rememberFleet } from "./fleet.ts";
import { FleetBar } from "./fleet_bar.ts";
import { FleetRow } from "./fleet_row.ts";
import { Live } from "./live.ts";
import { type Estimate, type Pack, STALE_AFTER_S, type Sample, isNewer, seconds } from "./records.ts";
import { SPARK_SPAN_S, SPARK_STEP_S, Trend } from "./sparkline.ts";
import type { View } from "./view.ts";

const PAGE_PACKS = 50;
const CARDS_UP_TO = 12;
/** The stream brings every pack of the fleet: beyond so many it would bring much more than a page shows. */
const STREAM_UP_TO = 200;
const TICK_MS = 1000;
const READ_AGAIN_S = 5; // order, bands, new packs
const ASK_AGAIN_S = 3; // without the stream: the readings, too
const TYPING_MS = 200;

export class FleetView implements View {
  readonly root = el("div", { class: "fleet" });
  readonly title = "packs";
  readonly #connection: Connection;
  readonly #packs = new Map<string, Pack>(); // of this page, in order
  readonly #trends = new Map<string, Trend>();
  readonly #rows = new Map<string, FleetRow>();
  readonly #seeded = new Set<string>();
  readonly #changed = new Set<string>();
  readonly #list = el("ul", { class: "packs" });
  readonly #message = el("div", { class: "message" });
  readonly #bar: FleetBar;
  readonly #timer: number;
  readonly #stop = new AbortController();
  #live: Live | null = null;
  #choice: Choice;
  #asking: AbortController | null = null;
  #asked = false; // the stream opened while an answer was on its way that may be older
  #typing = 0;
  #ticks = 0;
  #frame = 0;
  #last_s = 0;

  constructor(connection: Connection) {
    this.#connection = connection;
    this.#choice = choiceOf(window.location.hash);
    rememberFleet(addressOf(this.#choice));
    this.#bar = new FleetBar(this.#choice, (choice) => this.#choose(choice));
    this.root.append(this.#bar.root, this.#message, this.#list, this.#bar.pager);
    this.#message.append(notice("empty", "Reading the packs…"));
    connection.link = "connecting";
    this.#timer = window.setInterval(() => this.#tick(), TICK_MS);
    void this.#read();
  }

  close(): void {
    this.#live?.close();
    this.#stop.abort();
    this.#asking?.abort();
    window.clearTimeout(this.#typing);
    window.clearInterval(this.#timer);
    window.cancelAnimationFrame(this.#frame);
  }

  /** A new choice is asked for at once, a search when the typing pauses. */
  #choose(choice: Choice): void {
    const typed = choice.search !== this.#choice.search;
    this.#choice = choice;
    rememberFleet(addressOf(choice));
    window.history.replaceState(null, "", addressOf(choice));
    this.#asking?.abort();
    window.clearTimeout(this.#typing);
    this.#typing = window.setTimeout(() => void this.#read(), typed ? TYPING_MS : 0);
  }

  async #read(): Promise<void> {
    if (this.#asking && !this.#asking.signal.aborted) return;
    const asking = new AbortController();
    this.#asking = asking;
    this.#asked = false;
    try {
      const page = await fetchPacks(this.#choice, PAGE_PACKS, asking.signal);
      if (asking.signal.aborted) return;
      this.#show(page);
    } catch (error) {
      if (asking.signal.aborted) return;
      if (!(error instanceof ApiError)) throw error;
      if (!this.#live) this.#connection.link = "offline";
      this.#message.replaceChildren(notice("error", error.message));
    } finally {
      if (this.#asking === asking) {
        this.#asking = null;
        if (this.#asked && !this.#stop.signal.aborted) void this.#read();
      }
    }
  }

  #show(page: PacksPage): void {
    const { packs, total, counts } = page;
    const lastPage = Math.max(0, Math.ceil(total / PAGE_PACKS) - 1);
    if (this.#choice.page > lastPage) return this.#choose({ ...this.#choice, page: lastPage });
    this.#message.replaceChildren(...(counts.all ? [] : [emptyFleet()]));
    this.#last_s = Math.max(this.#last_s, seconds(page.t) ?? 0);
    this.#stream(counts.all);
    for (const pack of packs) this.#merge(pack);
    this.#arrange(packs.map((pack) => pack.pack_id));
    const many = counts.all > CARDS_UP_TO;
    setAttribute(this.root, "data-layout", many ? "table" : "cards");
    this.#bar.show({ counts, many, shown: total, choice: this.#choice, pagePacks: PAGE_PACKS });
    void this.#seedTrends();
  }

  #stream(count: number): void {
    if (count > STREAM_UP_TO) {
      this.#live?.close();
      this.#live = null;
      this.#connection.link = "live";
    } else {
      this.#live ??= new Live(null, {
        sample: (sample) => this.#take(sample),
        estimate: (estimate) => this.#takeEstimate(estimate),
        link: (link) => (this.#connection.link = link),
        opened: () => {
          this.#asked = this.#asking !== null;
          void this.#read();
        },
      });
    }
  }

  /** What was read may be older than what the stream already brought. */
  #merge(pack: Pack): void {
    const known = this.#packs.get(pack.pack_id);
    if (known && isNewer(known, pack)) {
      pack.t = known.t;
      pack.latest = known.latest;
    }
    if (known?.estimate && isNewer(known.estimate, pack.estimate)) pack.estimate = known.estimate;
    const [t_s, current_a] = [seconds(pack.t), pack.latest?.current_a];
    if (!this.#live && t_s !== null && current_a != null && known?.t !== pack.t) {
      this.#trend(pack.pack_id).add(t_s, current_a);
    }
    this.#packs.set(pack.pack_id, pack);
  }

  #take(sample: Sample): void {
    const t_s = seconds(sample.t);
    if (t_s === null) return;
    this.#last_s = Math.max(this.#last_s, t_s);
    const pack = this.#packs.get(sample.pack_id);
    if (!pack) return;
    if (sample.current_a != null) this.#trend(sample.pack_id).add(t_s, sample.current_a);
    if (!isNewer(sample, pack)) return; // backlog
    pack.t = sample.t ?? null;
    pack.latest = sample;
    this.#repaint(sample.pack_id);
  }

  #takeEstimate(estimate: Estimate): void {
    const pack = this.#packs.get(estimate.pack_id ?? "");
    if (!pack || !isNewer(estimate, pack.estimate)) return;
    pack.estimate = estimate;
    this.#repaint(pack.pack_id);
  }

  #trend(packId: string): Trend {
    const trend = this.#trends.get(packId) ?? new Trend();
    this.#trends.set(packId, trend);
    return trend;
  }

  #repaint(packId: string): void {
    this.#changed.add(packId);
    if (!this.#frame) this.#frame = window.requestAnimationFrame(() => this.#paint());
  }

  #paint(): void {
    this.#frame = 0;
    for (const packId of this.#changed) {
      const pack = this.#packs.get(packId);
      if (pack) this.#rows.get(packId)?.show(pack);
    }
    this.#changed.clear();
  }

  #tick(): void {
    const now_s = serverNow_s();
    this.#ticks += 1;
    for (const [packId, row] of this.#rows) row.tick(this.#packs.get(packId)!, now_s, this.#trends.get(packId));
    this.#connection.show(this.#last_s || null, staleAfter_s([...this.#packs.values()]));
    if (!document.hidden && this.#ticks % (this.#live ? READ_AGAIN_S : ASK_AGAIN_S) === 0) void this.#read();
  }

  /** Puts these packs into the list, and lets go of all others; touches only what is not yet in its place. */
  #arrange(order: readonly string[]): void {
    const now_s = serverNow_s();
    const wanted = new Set(order);
    for (const packId of [...this.#packs.keys()].filter((packId) => !wanted.has(packId))) {
      this.#rows.get(packId)?.root.remove();
      for (const kept of [this.#packs, this.#rows, this.#trends, this.#seeded]) kept.delete(packId);
    }
    order.forEach((packId, index) => {
      const pack = this.#packs.get(packId)!;
      const row = this.#rows.get(packId) ?? this.#newRow(packId);
      row.show(pack);
      row.tick(pack, now_s, this.#trends.get(packId));
      const there = this.#list.children[index] ?? null;
      if (there !== row.root) this.#list.insertBefore(row.root, there);
    });
    this.#changed.clear();
  }

  #newRow(packId: string): FleetRow {
    const row = new FleetRow(packId);
    this.#rows.set(packId, row);
    return row;
  }

  /** Reads the last minutes of the visible packs, one after the other: they are decoration beside the live values. */
  async #seedTrends(): Promise<void> {
    for (const packId of [...this.#rows.keys()]) {
      const last_s = seconds(this.#packs.get(packId)?.t);
      if (this.#seeded.has(packId) || last_s === null || this.#stop.signal.aborted) continue;
      this.#seeded.add(packId);
      const trend = this.#trend(packId);
      const span = { from_s: last_s - SPARK_SPAN_S, to_s: last_s, step_s: SPARK_STEP_S };
      try {
        const fields = ["current_a"] as const;
        for (const { t, current_a } of await fetchSamples(packId, { ...span, fields, signal: this.#stop.signal })) {
          if (current_a != null) trend.add(seconds(t)!, current_a);
        }
      } catch {
        this.#seeded.delete(packId); // asked again when the list is next read; the banner says what is wrong
        return;
      }
      const pack = this.#packs.get(packId); // the list may have turned its page meanwhile
      if (pack) this.#rows.get(packId)?.tick(pack, serverNow_s(), trend);
    }
  }
}

/** How old the newest data of all may be: as old as that of the pack that sends least often. */
function staleAfter_s(packs: readonly Pack[]): number {
  return Math.max(STALE_AFTER_S, ...packs.map((pack) => pack.stale_after_s));
}

function emptyFleet(): HTMLElement {
  const start = el("code", {}, "make run");
  const rest = document.createTextNode(", or point an edge agent at this server.");
  return notice("empty", "No pack has reported yet. Start three simulated cars with ", start, rest);
}
