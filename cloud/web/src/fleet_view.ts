/** All packs, live. Only the packs of the visible page have elements, so that 500 cost as little as 50. */

import { ApiError, fetchPacks, fetchSamples, serverNow_s } from "./api.ts";
import type { Connection } from "./connection.ts";
import { el, notice, setAttribute } from "./dom.ts";
import { type Choice, choose } from "./fleet.ts";
import { FleetBar } from "./fleet_bar.ts";
import { FleetRow } from "./fleet_row.ts";
import { Live } from "./live.ts";
import { type Pack, STALE_AFTER_S, type Sample, seconds } from "./records.ts";
import { SPARK_SPAN_S, SPARK_STEP_S, Trend } from "./sparkline.ts";
import type { View } from "./view.ts";

const PAGE_PACKS = 50;
const CARDS_UP_TO = 12;
const TICK_MS = 1000;
const SORT_AGAIN_S = 5;
const READ_AGAIN_S = 20; // bands, new packs, what the stream does not say

export class FleetView implements View {
  readonly root = el("div", { class: "fleet" });
  readonly title = "packs";
  readonly #connection: Connection;
  readonly #packs = new Map<string, Pack>();
  readonly #trends = new Map<string, Trend>();
  readonly #rows = new Map<string, FleetRow>();
  readonly #seeded = new Set<string>();
  readonly #changed = new Set<string>();
  readonly #list = el("ul", { class: "packs" });
  readonly #message = el("div", { class: "message" });
  readonly #bar: FleetBar;
  readonly #live: Live;
  readonly #timer: number;
  readonly #stop = new AbortController();
  #choice: Choice = { search: "", filter: "all", sort: "id" };
  #page = 0;
  #ticks = 0;
  #frame = 0;
  #reading = false;
  #strangerSeen = false;
  #failed = false;

  constructor(connection: Connection) {
    this.#connection = connection;
    this.#bar = new FleetBar(this.#choice, (choice, page) => {
      this.#choice = choice;
      this.#page = page;
      this.#arrange();
    });
    this.root.append(this.#bar.root, this.#message, this.#list, this.#bar.pager);
    this.#message.append(notice("empty", "Reading the packs…"));
    this.#live = new Live(null, {
      sample: (sample) => this.#take(sample),
      link: (link) => (connection.link = link),
      opened: () => void this.#read(),
    });
    this.#timer = window.setInterval(() => this.#tick(), TICK_MS);
    void this.#read();
  }

  close(): void {
    this.#live.close();
    this.#stop.abort();
    window.clearInterval(this.#timer);
    window.cancelAnimationFrame(this.#frame);
  }

  async #read(): Promise<void> {
    if (this.#reading) return;
    this.#reading = true;
    try {
      for (const pack of await fetchPacks()) this.#merge(pack);
      if (this.#stop.signal.aborted) return;
      this.#failed = false;
      this.#message.replaceChildren(...(this.#packs.size ? [] : [emptyFleet()]));
      this.#arrange();
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.#failed = true;
      this.#message.replaceChildren(notice("error", error.message));
    } finally {
      this.#reading = false;
    }
  }

  /** What was read may be older than what the stream already brought. */
  #merge(pack: Pack): void {
    const known = this.#packs.get(pack.pack_id);
    if (known && (seconds(known.t) ?? 0) > (seconds(pack.t) ?? 0)) {
      pack.t = known.t;
      pack.latest = known.latest;
    }
    this.#packs.set(pack.pack_id, pack);
    this.#changed.add(pack.pack_id);
  }

  #take(sample: Sample): void {
    const t_s = seconds(sample.t);
    const pack = this.#packs.get(sample.pack_id);
    if (!pack) this.#strangerSeen = true; // a new pack: read the list again
    if (t_s === null || !pack) return;
    if (sample.current_a != null) this.#trend(sample.pack_id).add(t_s, sample.current_a);
    if (t_s < (seconds(pack.t) ?? 0)) return; // backlog
    pack.t = sample.t ?? null;
    pack.latest = sample;
    this.#changed.add(sample.pack_id);
    if (!this.#frame) this.#frame = window.requestAnimationFrame(() => this.#paint());
  }

  #trend(packId: string): Trend {
    const trend = this.#trends.get(packId) ?? new Trend();
    this.#trends.set(packId, trend);
    return trend;
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
    const last_s = [...this.#packs.values()].reduce((newest_s, pack) => Math.max(newest_s, seconds(pack.t) ?? 0), 0);
    this.#connection.show(last_s || null);
    const doubtful = this.#failed || now_s - last_s > STALE_AFTER_S;
    const again = this.#strangerSeen || this.#ticks % (doubtful ? SORT_AGAIN_S : READ_AGAIN_S) === 0;
    if (again) {
      this.#strangerSeen = false;
      void this.#read();
    } else if (this.#ticks % SORT_AGAIN_S === 0) this.#arrange();
  }

  /** Puts the chosen packs of the page into the list; touches only what is not yet in its place. */
  #arrange(): void {
    const now_s = serverNow_s();
    const { chosen, counts } = choose([...this.#packs.values()], this.#choice, now_s);
    const pages = Math.max(1, Math.ceil(chosen.length / PAGE_PACKS));
    this.#page = Math.min(this.#page, pages - 1);
    const first = this.#page * PAGE_PACKS;
    const visible = chosen.slice(first, first + PAGE_PACKS);
    const wanted = new Set(visible.map((pack) => pack.pack_id));
    for (const [packId, row] of this.#rows) {
      if (wanted.has(packId)) continue;
      row.root.remove();
      this.#rows.delete(packId);
    }
    visible.forEach((pack, index) => {
      const row = this.#rows.get(pack.pack_id) ?? this.#newRow(pack.pack_id);
      row.show(pack);
      row.tick(pack, now_s, this.#trends.get(pack.pack_id));
      const there = this.#list.children[index] ?? null;
      if (there !== row.root) this.#list.insertBefore(row.root, there);
    });
    const many = this.#packs.size > CARDS_UP_TO;
    setAttribute(this.root, "data-layout", many ? "table" : "cards");
    this.#bar.show({ counts, many, shown: chosen.length, page: this.#page, pages, pagePacks: PAGE_PACKS });
    this.#paint();
    void this.#seedTrends();
  }

  #newRow(packId: string): FleetRow {
    const row = new FleetRow(packId);
    this.#rows.set(packId, row);
    return row;
  }

  /** Reads the last minutes of the visible packs, one after the other: they are decoration beside the live values. */
  async #seedTrends(): Promise<void> {
    for (const packId of this.#rows.keys()) {
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
        this.#seeded.delete(packId); // asked again when the list is next arranged; the banner says what is wrong
        return;
      }
      this.#rows.get(packId)?.tick(this.#packs.get(packId)!, serverNow_s(), trend);
    }
  }
}

function emptyFleet(): HTMLElement {
  const start = el("code", {}, "make run");
  const rest = document.createTextNode(", or point an edge agent at this server.");
  return notice("empty", "No pack has reported yet. Start three simulated cars with ", start, rest);
}
