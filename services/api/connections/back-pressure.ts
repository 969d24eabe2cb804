import type { IncomingMessage } from "node:http";
import type { Connection } from "./connection";

/*
 * How much one connection may have in progress, and how fast its client must read: a few requests are started, the others wait.
 */

export interface BackPressureLimits {
  /** Maximum size of the response to a request, while it is not ready yet. */
  largestBytes(req: IncomingMessage): number;
  /** Maximum number of requests per connection that are started at a time. */
  started: number;
  /** Maximum requests in progress per address; beyond that only the first of each connection starts, since each holds its head in memory. */
  exchanges: number;
  /** Maximum response bytes per connection that wait behind the response being sent. */
  unsentBehindBytes: number;
  /** A response must be sent within `sendTimeoutMs` plus its size divided by `sendBytesPerSecond`, or its connection is closed. */
  sendTimeoutMs: number;
  sendBytesPerSecond: number;
}

const KIB = 1_024;
export const BACK_PRESSURE: Omit<BackPressureLimits, "largestBytes"> = {
  started: 8,
  exchanges: 1_024,
  unsentBehindBytes: KIB * KIB,
  sendTimeoutMs: 30_000,
  sendBytesPerSecond: 16 * KIB,
};

/** Whether another request may start: even responses of maximum size must not exceed the limit. None starts behind a stream. */
export function canStart({ started, unsentBytes, holder }: Connection, req: IncomingMessage, limits: BackPressureLimits): boolean {
  const [head, ...others] = started;
  if (head === undefined) return true;
  if (head.isStream || started.length >= limits.started || holder.exchanges >= limits.exchanges) return false;
  let behindBytes = unsentBytes - head.bytes + limits.largestBytes(req);
  for (const other of others) {
    if (other.isStream) return false;
    if (other.readyAt === undefined) behindBytes += limits.largestBytes(other.req);
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
    if (head?.readyAt === undefined || head.isStream) continue;
    const allowedMs = limits.sendTimeoutMs + (head.bytes / limits.sendBytesPerSecond) * 1_000;
    if (now - Math.max(headSince, head.readyAt) > allowedMs) socket.destroy();
  }
}
