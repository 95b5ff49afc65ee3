/** The one line at the top that says whether what one sees is live, and if not, how old it is. */

import { serverNow_s } from "./api.ts";
import { setAttribute, setText } from "./dom.ts";
import type { Link } from "./live.ts";
import { STALE_AFTER_S } from "./records.ts";
import { spanWords } from "./words.ts";

/** What the line says, and how it looks. */
export function linkWords(link: Link, age_s: number | null, staleAfter_s = STALE_AFTER_S): { text: string; look: Link | "quiet" } {
  const age = age_s === null ? "" : `, last data ${spanWords(age_s)} ago`;
  if (link === "connecting") return { text: "Connecting…", look: "connecting" };
  if (link === "reconnecting") return { text: `Reconnecting${age}`, look: "reconnecting" };
  if (link === "offline") return { text: `Offline${age}`, look: "offline" };
  if (age_s === null) return { text: "Connected, no data yet", look: "quiet" };
  if (age_s > staleAfter_s) return { text: `Connected${age}`, look: "quiet" };
  return { text: "Live", look: "live" };
}

export class Connection {
  readonly #node: Element;
  #link: Link = "connecting";

  constructor(node: Element) {
    this.#node = node;
  }

  set link(link: Link) {
    this.#link = link;
  }

  /** `last_s`: time of the newest data on the page, seconds since 1970; `staleAfter_s`: how old it may be. */
  show(last_s: number | null, staleAfter_s = STALE_AFTER_S): void {
    const { text, look } = linkWords(this.#link, last_s === null ? null : serverNow_s() - last_s, staleAfter_s);
    setText(this.#node, text);
    setAttribute(this.#node, "data-link", look);
  }
}
