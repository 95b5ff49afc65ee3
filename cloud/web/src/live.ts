/** The live stream: one EventSource that is opened again, with growing pauses, for as long as the view is open. */

import type { Estimate, PackEvent, Sample } from "./records.ts";

export type Link = "connecting" | "live" | "reconnecting" | "offline";

export interface Listener {
  sample(sample: Sample): void;
  estimate?(estimate: Estimate): void;
  event?(event: PackEvent): void;
  link(link: Link): void;
  /** Each time the stream opens or has dropped something: read what was missed meanwhile. */
  opened(): void;
}

const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 10_000;
const OFFLINE_AFTER_TRIES = 3;
/** A page nobody looks at lets go of the stream, so that the device may leave the live mode. */
const HIDDEN_AFTER_MS = 60_000;

export class Live {
  readonly #url: string;
  readonly #listener: Listener;
  readonly #stop = new AbortController();
  #source: EventSource | null = null;
  #timer = 0;
  #tries = 0;

  /** Streams one pack, or all packs when `packId` is null. */
  constructor(packId: string | null, listener: Listener) {
    this.#url = packId === null ? "api/v1/live" : `api/v1/live?${new URLSearchParams({ pack_id: packId })}`;
    this.#listener = listener;
    const { signal } = this.#stop;
    document.addEventListener("visibilitychange", () => this.#visibility(), { signal });
    window.addEventListener("online", () => this.#open(), { signal });
    listener.link("connecting");
    this.#open();
  }

  close(): void {
    this.#stop.abort();
    this.#release();
  }

  #release(): void {
    window.clearTimeout(this.#timer);
    this.#source?.close();
    this.#source = null;
  }

  #open(): void {
    this.#release();
    const source = new EventSource(this.#url);
    this.#source = source;
    source.onopen = () => {
      this.#tries = 0;
      this.#listener.link("live");
      this.#listener.opened();
    };
    source.onerror = () => this.#failed();
    source.addEventListener("sample", (message) => this.#listener.sample(JSON.parse(message.data) as Sample));
    source.addEventListener("dropped", () => this.#listener.opened()); // this page was too slow: read what it missed
    source.addEventListener("estimate", (message) => this.#listener.estimate?.(JSON.parse(message.data) as Estimate));
    source.addEventListener("event", (message) => this.#listener.event?.(JSON.parse(message.data) as PackEvent));
  }

  #failed(): void {
    this.#release();
    this.#tries += 1;
    this.#listener.link(this.#tries > OFFLINE_AFTER_TRIES || !navigator.onLine ? "offline" : "reconnecting");
    const pause_ms = Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** (this.#tries - 1));
    this.#timer = window.setTimeout(() => this.#open(), pause_ms * (0.75 + Math.random() / 2));
  }

  #visibility(): void {
    if (document.hidden) {
      if (this.#source) this.#timer = window.setTimeout(() => this.#release(), HIDDEN_AFTER_MS);
    } else if (this.#source) {
      window.clearTimeout(this.#timer);
    } else {
      this.#open();
    }
  }
}
