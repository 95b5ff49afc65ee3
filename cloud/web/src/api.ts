/** Reading the HTTP API; every failure becomes one sentence for people. */

import type { Choice, Show } from "./fleet.ts";
import type { Pack, PackEvent, Sample } from "./records.ts";

export class ApiError extends Error {
  readonly status: number; // 0 = the server was not reached

  constructor(status: number, sentence: string) {
    super(sentence);
    this.status = status;
  }
}

let serverAhead_ms = 0;

/** The server's time in seconds since 1970: ages stay right on a phone whose clock is wrong. */
export function serverNow_s(): number {
  return (Date.now() + serverAhead_ms) / 1000;
}

function noteServerTime(response: Response): void {
  const difference_ms = Date.parse(response.headers.get("date") ?? "") - Date.now();
  // The header counts whole seconds, so a small difference says nothing.
  serverAhead_ms = Math.abs(difference_ms) > 3000 ? difference_ms : 0;
}

async function failure(response: Response): Promise<ApiError> {
  if (response.status === 503) {
    return new ApiError(503, "The database is down; this page goes on by itself when it is back.");
  }
  const body: unknown = await response.json().catch(() => null);
  const detail = body && typeof body === "object" && "detail" in body ? body.detail : null;
  return new ApiError(response.status, typeof detail === "string" ? detail : `The server answered ${response.status}.`);
}

async function get<T>(path: string, signal?: AbortSignal): Promise<T> {
  let response: Response;
  try {
    response = await fetch(path, { signal: signal ?? null, headers: { accept: "application/json" } });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError(0, "The server does not answer; this page goes on by itself when it does.");
  }
  noteServerTime(response);
  if (response.status === 401) window.location.reload(); // the login is over: the server answers with its form
  if (!response.ok) throw await failure(response);
  return (await response.json()) as T;
}

const packPath = (packId: string): string => `api/v1/packs/${encodeURIComponent(packId)}`;

export interface PacksPage {
  packs: Pack[];
  total: number; // how many fit the choice
  counts: Record<Show, number>; // of all packs
  t: string | null; // of the newest Sample of all
}

/** One page of the packs that fit the choice, in its order. */
export function fetchPacks(choice: Choice, limit: number, signal: AbortSignal): Promise<PacksPage> {
  const { search, show, order, page } = choice;
  const query = new URLSearchParams({ search, show, order, limit: `${limit}`, offset: `${page * limit}` });
  return get<PacksPage>(`api/v1/packs?${query}`, signal);
}

export function fetchModel(modelId: string, signal: AbortSignal): Promise<{ simulated: boolean }> {
  return get(`api/v1/models/${encodeURIComponent(modelId)}`, signal);
}

export function fetchPack(packId: string): Promise<Pack> {
  return get<Pack>(packPath(packId));
}

export async function fetchOpenEvents(packId: string): Promise<PackEvent[]> {
  return (await get<{ events: PackEvent[] }>(`${packPath(packId)}/events?only_open=true`)).events;
}

interface SamplesPage {
  columns: string[];
  rows: unknown[][];
  next: string | null;
}

export interface SamplesQuery {
  from_s: number;
  to_s: number;
  step_s?: number; // absent = every Sample; else the mean of each step
  fields: readonly (keyof Sample)[];
  signal?: AbortSignal;
}

/** A pack's Samples in [from, to], oldest first, with the asked fields only. */
export async function fetchSamples(packId: string, query: SamplesQuery): Promise<Sample[]> {
  const parameters = new URLSearchParams({
    from: new Date(query.from_s * 1000).toISOString(),
    to: new Date(query.to_s * 1000).toISOString(),
    fields: query.fields.join(","),
    limit: "1000",
  });
  if (query.step_s !== undefined) parameters.set("step", String(query.step_s));
  const samples: Sample[] = [];
  for (let cursor: string | null = ""; cursor !== null; ) {
    if (cursor) parameters.set("cursor", cursor);
    const page: SamplesPage = await get(`${packPath(packId)}/samples?${parameters}`, query.signal);
    for (const row of page.rows) {
      const pairs = page.columns.map((name, column) => [name, row[column]] as const);
      samples.push({ ...(Object.fromEntries(pairs) as Partial<Sample>), pack_id: packId });
    }
    cursor = page.next;
  }
  return samples;
}
