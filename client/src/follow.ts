import { createParser } from "eventsource-parser";
import { errorOf, ShopError } from "./problem.js";
import { pause, type Fetch } from "./retry.js";
import type { components } from "./schema.js";

type Order = components["schemas"]["Order"];

/** A change of an order. */
export interface OrderEvent {
  /** Its position in the order's history, from 1. */
  id: number;
  status: Order["status"];
  /** When it happened, in RFC 3339. */
  at: string;
  /** Why the order is REJECTED; null for any other status. */
  reason: string | null;
}

export interface FollowOptions {
  /** The id of the last event that is known already. */
  after?: number;
  /** Ends the iteration, with the signal's reason as an error. */
  signal?: AbortSignal;
}

/** As the shop asks for, until a stream says otherwise. */
const RECONNECT_MS = 2_000;
const MAX_RECONNECT_MS = 30_000;
/** An open stream is never silent for longer than 5 s: after this time its connection is dead, in ms. */
const SILENT_MS = 30_000;

/**
 * An order's history, and then its changes as they happen. Reconnects when a stream ends or breaks, and misses no event. Ends after REJECTED
 * and CANCELLED; after CONFIRMED a cancel may follow, so break out of the loop if you need only the decision.
 * @param fetch authorizes the request, and retries it
 * @throws ShopError if the first stream can't be opened, or the order is no longer visible
 */
export async function* follow(url: string, fetch: Fetch, { after = 0, signal }: FollowOptions): AsyncGenerator<OrderEvent, void> {
  let seen = after;
  let reconnectMs = RECONNECT_MS;
  let failures = 0;
  for (let isFirst = true; ; isFirst = false) {
    const stream = await open(url, fetch, seen, signal).catch((error: unknown) => {
      if (isFirst || signal?.aborted === true || (error instanceof ShopError && isLasting(error))) throw error;
      return undefined;
    });
    if (stream === "over") return;
    failures = stream === undefined ? failures + 1 : 0;
    for await (const event of stream === undefined ? [] : eventsOf(stream, (ms) => (reconnectMs = ms), signal)) {
      if (event.id <= seen) continue;
      seen = event.id;
      yield event;
      if (event.status === "REJECTED" || event.status === "CANCELLED") return;
    }
    signal?.throwIfAborted();
    await pause(Math.min(reconnectMs * 2 ** failures, MAX_RECONNECT_MS) * (0.75 + 0.5 * Math.random()), signal);
  }
}

const isLasting = ({ status }: ShopError): boolean => status < 500 && status !== 429;

async function open(
  url: string,
  fetch: Fetch,
  seen: number,
  signal: AbortSignal | undefined,
): Promise<ReadableStream<Uint8Array> | "over"> {
  const headers = { Accept: "text/event-stream", "Last-Event-ID": String(seen) };
  const response = await fetch(new Request(url, { headers, ...(signal && { signal }) }));
  if (response.status === 204) return "over"; // the last event was final
  if (!response.ok || response.body === null) throw await errorOf(response);
  if (response.headers.get("Content-Type")?.startsWith("text/event-stream") !== true) throw new ShopError(response.status, undefined);
  return response.body;
}

const STATUSES: readonly string[] = ["PENDING", "CONFIRMED", "REJECTED", "CANCELLED"] satisfies Order["status"][];

const isChange = (data: unknown): data is Omit<OrderEvent, "id"> =>
  typeof data === "object" &&
  data !== null &&
  "status" in data &&
  STATUSES.includes(String(data.status)) &&
  "at" in data &&
  typeof data.at === "string" &&
  "reason" in data;

/** The events of one stream. A connection that breaks or is dead ends it like any other. */
async function* eventsOf(
  body: ReadableStream<Uint8Array>,
  onRetry: (ms: number) => void,
  signal: AbortSignal | undefined,
): AsyncGenerator<OrderEvent, void> {
  const received: OrderEvent[] = [];
  const parser = createParser({
    onRetry,
    onEvent: ({ id, event, data }) => {
      const change: unknown = event === "status" ? JSON.parse(data) : undefined;
      if (isChange(change)) received.push({ ...change, id: Number(id) });
    },
  });
  const decoder = new TextDecoder();
  const reader = body.getReader(); // not every browser can iterate over a stream
  const cancel = (): void => {
    reader.cancel().catch(() => undefined); // it may have failed already
  };
  signal?.addEventListener("abort", cancel); // some versions of Node.js lose the signal of a cloned request
  try {
    for (;;) {
      const timer = setTimeout(cancel, SILENT_MS);
      const { done, value } = await reader.read().catch(() => ({ done: true, value: undefined }));
      clearTimeout(timer);
      if (done || value === undefined) return;
      parser.feed(decoder.decode(value, { stream: true }));
      yield* received.splice(0);
    }
  } finally {
    signal?.removeEventListener("abort", cancel);
    cancel();
  }
}
