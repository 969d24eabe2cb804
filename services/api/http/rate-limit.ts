import { LRUCache } from "lru-cache";
import { problem } from "../../../broker/errors";

const MAX_CLIENTS = 10_000;
const WINDOW_MS = 1_000;

interface Count {
  since: number;
  requests: number;
}

/** Limits each client to a number of requests per second per gateway. */
export class RateLimit {
  private readonly clients = new LRUCache<string, Count>({ max: MAX_CLIENTS });

  /** @param limit requests per second; 0 means no limit */
  constructor(private readonly limit: number) {}

  get isOn(): boolean {
    return this.limit > 0;
  }

  /** @throws TOO_MANY_REQUESTS */
  count(client: string): void {
    const now = performance.now();
    let count = this.clients.get(client);
    if (count === undefined || now - count.since >= WINDOW_MS) this.clients.set(client, (count = { since: now, requests: 0 }));
    if (++count.requests > this.limit) throw problem("TOO_MANY_REQUESTS", "too many requests; try again later", { retryAfter: 1 });
  }
}
