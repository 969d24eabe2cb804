import type { IncomingMessage } from "node:http";
import { hotProductId } from "../hot-read";
import type { Connection } from "./connection";

/*
 * How much one connection may have in progress, and how fast its client must read: a few requests are started, the others wait.
 */

export interface BackPressureLimits {
  /** Maximum number of requests per connection that are started at a time. */
  started: number;
  /** Maximum response bytes per connection that wait behind the response being sent. */
  unsentBehindBytes: number;
  /** A response must be sent within `sendTimeoutMs` plus its size divided by `sendBytesPerSecond`, or its connection is closed. */
  sendTimeoutMs: number;
  sendBytesPerSecond: number;
}

const KIB = 1_024;
export const BACK_PRESSURE: BackPressureLimits = {
  started: 8,
  unsentBehindBytes: KIB * KIB,
  sendTimeoutMs: 30_000,
  sendBytesPerSecond: 16 * KIB,
};

/**
 * Maximum size of a response that is not ready yet: a page has 256 KiB, an order 100 lines with names of 200 characters, and a product
 * a description of 5,000 characters.
 */
const LARGEST_BYTES = 260 * KIB;
const LARGEST_ORDER_BYTES = 96 * KIB;
const LARGEST_PRODUCT_BYTES = 32 * KIB;

function largestBytes(req: IncomingMessage): number {
  if (hotProductId(req) !== undefined) return LARGEST_PRODUCT_BYTES;
  return req.method === "GET" ? LARGEST_BYTES : LARGEST_ORDER_BYTES;
}

/** Whether another request may start: even responses of maximum size must not exceed the limit. None starts behind a stream. */
export function hasRoom({ started, unsentBytes }: Connection, req: IncomingMessage, limits: BackPressureLimits): boolean {
  const [head, ...others] = started;
  if (head === undefined) return true;
  if (head.isStream || started.length >= limits.started) return false;
  let behindBytes = unsentBytes - head.bytes + largestBytes(req);
  for (const other of others) {
    if (other.isStream) return false;
    if (other.madeAt === undefined) behindBytes += largestBytes(other.req);
  }
  return behindBytes <= limits.unsentBehindBytes;
}

/**
 * Closes connections whose client does not read in time, and those with a request behind a stream: `Connection: close` declared it the last
 * response, and the request might wait very long.
 */
export function closeSlowReaders(connections: Iterable<Connection>, limits: BackPressureLimits): void {
  const now = performance.now();
  for (const { socket, started, waiting, headSince } of connections) {
    const [head] = started;
    if (head?.isStream && started.length + waiting.length > 1) socket.destroy();
    if (head?.madeAt === undefined || head.isStream) continue;
    const allowedMs = limits.sendTimeoutMs + (head.bytes / limits.sendBytesPerSecond) * 1_000;
    if (now - Math.max(headSince, head.madeAt) > allowedMs) socket.destroy();
  }
}
