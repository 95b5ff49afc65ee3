/** Which packs the list shows and in which order; the server chooses, the address remembers. */

export const SHOWS = {
  all: "all",
  critical: "critical",
  warning: "warning",
  stale: "stale",
  unpredicted: "no prediction",
} as const;
export type Show = keyof typeof SHOWS;

export const ORDERS = {
  id: "by name",
  status: "worst first",
  rul: "shortest life",
  failure: "greatest risk",
  soc: "lowest charge",
  soh: "lowest health",
  temp: "hottest",
  spread: "widest cell spread",
  age: "longest silent",
} as const;
export type Order = keyof typeof ORDERS;

export interface Choice {
  search: string;
  show: Show;
  order: Order;
  page: number; // from 0
}

export const EVERYTHING: Choice = { search: "", show: "all", order: "id", page: 0 };

/** The choice that an address such as `#/?show=critical&order=rul` names; what it does not know is left out. */
export function choiceOf(address: string): Choice {
  const asked = new URLSearchParams(/^#\/?\?(.*)$/.exec(address)?.[1] ?? "");
  const [show, order, page] = [asked.get("show") ?? "", asked.get("order") ?? "", Number(asked.get("page") ?? 1)];
  return {
    search: asked.get("search") ?? "",
    show: Object.hasOwn(SHOWS, show) ? (show as Show) : EVERYTHING.show,
    order: Object.hasOwn(ORDERS, order) ? (order as Order) : EVERYTHING.order,
    page: Number.isInteger(page) && page > 0 && page < 1e6 ? page - 1 : 0,
  };
}

/** The shortest address of a choice. */
export function addressOf({ search, show, order, page }: Choice): string {
  const said = new URLSearchParams();
  if (search) said.set("search", search);
  if (show !== EVERYTHING.show) said.set("show", show);
  if (order !== EVERYTHING.order) said.set("order", order);
  if (page) said.set("page", `${page + 1}`);
  return said.size ? `#/?${said}` : "#/";
}

let last = "#/";

/** Remembers the list's address, so that the way back from a pack leads to the same list. */
export function rememberFleet(address: string): void {
  last = address;
}

export function fleetAddress(): string {
  return last;
}
