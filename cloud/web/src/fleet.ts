/** Which packs are shown, and in which order. */

import { type Pack, type Sample, STALE_AFTER_S, hottest_c, seconds, spread_mv, statusOf, tagsOf } from "./records.ts";

export const FILTERS = ["all", "critical", "warning", "stale"] as const;
export type Filter = (typeof FILTERS)[number];

export const SORTS = {
  id: "by name",
  status: "worst first",
  soc: "lowest charge",
  temp: "hottest",
  spread: "widest cell spread",
  soh: "lowest health",
  age: "longest silent",
} as const;
export type Sort = keyof typeof SORTS;

export interface Choice {
  search: string;
  filter: Filter;
  sort: Sort;
}

function isStale(pack: Pack, now_s: number): boolean {
  const last_s = seconds(pack.t);
  return last_s === null || now_s - last_s > STALE_AFTER_S;
}

function belongs(pack: Pack, filter: Filter, now_s: number): boolean {
  if (filter === "all") return true;
  return filter === "stale" ? isStale(pack, now_s) : statusOf(pack) === filter;
}

function mentions(pack: Pack, words: readonly string[]): boolean {
  const { pack_id, device, vehicle, fleet, chemistry, latest } = pack;
  const text = [pack_id, device, vehicle, fleet, chemistry, latest?.state, ...tagsOf(pack)].join(" ").toLowerCase();
  return words.every((word) => text.includes(word));
}

/** How early a pack comes: smaller is earlier, unknown is last. */
function rank(pack: Pack, sort: Sort): number {
  const sample = pack.latest;
  const largest = (of: (sample: Sample) => number | null): number => -((sample && of(sample)) ?? -Infinity);
  switch (sort) {
    case "id":
      return 0;
    case "status":
      return { critical: 0, warning: 1, good: 2, unknown: 3 }[statusOf(pack) ?? "unknown"];
    case "soc":
      return sample?.soc_bms ?? Infinity;
    case "soh":
      return sample?.soh_bms ?? Infinity;
    case "temp":
      return largest(hottest_c);
    case "spread":
      return largest(spread_mv);
    case "age":
      return seconds(pack.t) ?? -Infinity;
  }
}

const byName = new Intl.Collator("en", { numeric: true });

/** The chosen packs in their order, and how many each filter would show. */
export function choose(
  packs: readonly Pack[],
  choice: Choice,
  now_s: number,
): { chosen: Pack[]; counts: Record<Filter, number> } {
  const words = choice.search.toLowerCase().split(/\s+/).filter(Boolean);
  const counts = { all: 0, critical: 0, warning: 0, stale: 0 };
  const ranked: { pack: Pack; rank: number }[] = [];
  for (const pack of packs) {
    for (const filter of FILTERS) if (belongs(pack, filter, now_s)) counts[filter] += 1;
    if (!belongs(pack, choice.filter, now_s) || !mentions(pack, words)) continue;
    ranked.push({ pack, rank: rank(pack, choice.sort) });
  }
  // Not a subtraction: two unknown ranks are both infinite.
  const order = (a: number, b: number): number => (a < b ? -1 : a > b ? 1 : 0);
  ranked.sort((a, b) => order(a.rank, b.rank) || byName.compare(a.pack.pack_id, b.pack.pack_id));
  return { chosen: ranked.map(({ pack }) => pack), counts };
}
