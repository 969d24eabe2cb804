import type { ServerResponse } from "node:http";
import { errorCode, isUnavailable, problem } from "../../broker/errors";
import { currentRequestId, withRequest } from "../../broker/request";
import { isFinal, type Order } from "../../contracts/orders";
import type { Caller } from "../../contracts/users";
import type { Requester } from "../../mixins/batching";
import { shareOf } from "../../mixins/fair-queue";
import type { TokenVerifier } from "./auth/token-verifier";
import type { BatchedCalls } from "./batched-calls";

/** An order and the client that follows its changes. */
export interface Following {
  order: Order;
  caller: Caller;
  /** How many entries of its history the client has: the id of the last event that it received. */
  seen: number;
}

export interface StreamLimits {
  /** Maximum streams per user, and in total, per gateway; an address holds a quarter of the total at most. */
  ofOneUser: number;
  ofAll: number;
  /** Maximum time between two reads of an order, in ms, since `order.changed` may get lost. */
  readEveryMs: number;
  /** Milliseconds after which a stream ends; its client resumes, here or at another gateway. */
  lifeMs: number;
}

const LIMITS: StreamLimits = { ofOneUser: 10, ofAll: 1_000, readEveryMs: 5_000, lifeMs: 900_000 };

/** Milliseconds after which a client reconnects when its stream has ended. */
const RETRY_MS = 2_000;
/** Interval of the check for ended sessions, in ms. Together with the polling interval of 1 s, a stream ends within 2 s. */
const WATCH_MS = 250;
/** Maximum unsent bytes per stream; more than a whole history has. */
const MAX_UNSENT_BYTES = 16_384;

/** A stream is the last response of its connection (RFC 9112, 9.6). */
export const EVENT_STREAM = { "Content-Type": "text/event-stream", "X-Accel-Buffering": "no", Connection: "close" };

/** How to read a stream, for the OpenAPI document: Swagger UI shows a response only once it is complete. */
export const STREAM_EXAMPLE = `The stream stays open until the order is final, for 15 minutes at most. Read it in a terminal, with the URL of this
server in \`SHOP\`, the id of an order in \`ORDER\` and an access token in \`TOKEN\`:

    curl -N "$SHOP/orders/$ORDER/events" -H "Authorization: Bearer $TOKEN"`;

/** The open event streams of one gateway. Without any there is no timer, and a change costs nothing. */
export class Streams {
  private readonly all = new Set<Stream>();
  private readonly byUser = new Map<string, Set<Stream>>();
  private readonly byAddress = new Map<string, Set<Stream>>();
  private readonly byOrder = new Map<string, Set<Stream>>();
  private readonly limits: StreamLimits;
  private ended = false;
  private watching: NodeJS.Timeout | undefined;

  constructor(
    private readonly batched: Pick<BatchedCalls, "order">,
    private readonly verifier: Pick<TokenVerifier, "verify" | "refresh" | "isCurrent">,
    limits: Partial<StreamLimits> = {},
  ) {
    this.limits = { ...LIMITS, ...limits };
  }

  /**
   * Registers a stream until its `close`. Nothing is written before its `begin`.
   * @throws TOO_MANY_REQUESTS if the user or the address has too many streams, SERVICE_UNAVAILABLE if the gateway is at its limit or shutting
   * down
   */
  open(res: ServerResponse, following: Following, token: string, requester: Requester): Stream {
    const { ofOneUser, ofAll } = this.limits;
    const { caller, order } = following;
    const { address } = requester;
    if ((this.byAddress.get(address)?.size ?? 0) >= shareOf(ofAll))
      throw problem("TOO_MANY_REQUESTS", "too many streams are open from your address: close one first");
    if ((this.byUser.get(caller.id)?.size ?? 0) >= ofOneUser)
      throw problem("TOO_MANY_REQUESTS", `${ofOneUser} streams of yours are open here: close one first`);
    if (this.ended || this.all.size >= ofAll) throw problem("SERVICE_UNAVAILABLE", "no stream can be opened here now");

    // Not the request itself: the stream outlives it and its deadline.
    const reader: Requester = { address, user: caller.id, isWanted: () => !res.destroyed };
    const stream = new Stream(res, following.caller, following.seen, () => this.read(order.id, token, reader), this.limits);
    this.all.add(stream);
    this.watching ??= setInterval(() => {
      this.endRevoked();
    }, WATCH_MS).unref();
    include(this.byAddress, address, stream);
    include(this.byUser, caller.id, stream);
    include(this.byOrder, order.id, stream);
    stream.close = () => {
      stream.stop();
      this.all.delete(stream);
      exclude(this.byAddress, address, stream);
      exclude(this.byUser, caller.id, stream);
      exclude(this.byOrder, order.id, stream);
      if (this.all.size > 0) return;
      clearInterval(this.watching);
      this.watching = undefined;
    };
    return stream;
  }

  /** Updates the streams of orders that have changed. */
  changed(orders: readonly { order_id: string }[]): void {
    for (const { order_id } of orders) for (const stream of this.byOrder.get(order_id) ?? []) stream.update();
  }

  /** Ends all streams and refuses new ones. */
  end(): void {
    this.ended = true;
    for (const stream of this.all) stream.end();
  }

  /** Ends streams whose session has ended or whose user's role has changed. Clients that are still allowed to will reconnect. */
  private endRevoked(): void {
    void this.verifier.refresh();
    for (const stream of this.all) if (!this.verifier.isCurrent(stream.caller)) stream.end();
  }

  /** Verifies the token again, since it may expire or be revoked while the stream is open. */
  private async read(id: string, token: string, requester: Requester): Promise<Order> {
    return this.batched.order(id, await this.verifier.verify(token), requester);
  }
}

/** One event stream: an order's history, then each change, as `order.changed` or a periodic read reveals it. */
export class Stream {
  /** Unregisters the stream; called when its response is over. */
  close: () => void = () => undefined;
  private isOpen = true;
  private isReading = false;
  private mayBeStale = false;
  private timer: NodeJS.Timeout | undefined;
  private readonly until: number;
  private readonly requestId = currentRequestId(); // a read after `order.changed` would otherwise get that event's id

  constructor(
    private readonly res: ServerResponse,
    readonly caller: Caller,
    private seen: number,
    private readonly read: () => Promise<Order>,
    private readonly limits: StreamLimits,
  ) {
    this.until = performance.now() + limits.lifeMs;
  }

  /** Call after the response head is written. */
  begin(order: Order): void {
    this.write(`retry: ${RETRY_MS}\n\n`);
    this.writeNew(order);
    this.update(); // the order may have changed after it was read and before this stream was registered
  }

  /** Reads the order and sends new events. If another change is reported meanwhile, the read may be too old, so it is repeated. */
  update(): void {
    this.mayBeStale = true;
    if (this.isOpen && !this.isReading) void withRequest(this.requestId, Infinity, () => this.catchUp());
  }

  end(): void {
    if (!this.isOpen) return;
    this.stop();
    this.res.end();
  }

  /** Stops all writing. */
  stop(): void {
    this.isOpen = false;
    clearTimeout(this.timer);
  }

  private async catchUp(): Promise<void> {
    clearTimeout(this.timer);
    this.isReading = true;
    while (this.isOpen && this.mayBeStale) {
      this.mayBeStale = false;
      try {
        this.writeNew(await this.read());
      } catch (error) {
        // The token is no longer valid, or the order no longer visible. If a service is unavailable or busy, read again later.
        if (!isUnavailable(error) && errorCode(error) !== "TOO_MANY_REQUESTS") this.end();
      }
    }
    this.isReading = false;
    if (this.isOpen) this.wait();
  }

  /** Schedules the next read, with jitter: streams that started together should not keep reading together. */
  private wait(): void {
    const spread = this.limits.readEveryMs * (0.8 + 0.2 * Math.random());
    this.timer = setTimeout(
      () => {
        if (performance.now() >= this.until) {
          this.end();
          return;
        }
        this.write(": \n\n"); // keep proxies from closing an idle connection
        this.update();
      },
      Math.min(spread, this.until - performance.now()),
    );
  }

  private writeNew(order: Order): void {
    const text = events(order, this.seen);
    this.seen = order.history.length;
    if (text !== "") this.write(text);
    if (isFinal(order.status)) this.end();
  }

  private write(text: string): void {
    if (!this.isOpen) return;
    this.res.write(text);
    if (this.res.writableLength <= MAX_UNSENT_BYTES) return;
    this.stop();
    this.res.destroy();
  }
}

/** New entries of an order's history as events with a line of JSON (WHATWG HTML, 9.2.5). An event's id is its position in the history. */
function events({ history, reason }: Order, seen: number): string {
  const data = history.map(({ status, at }) => JSON.stringify({ status, at, reason: status === "REJECTED" ? reason : null }));
  const all = data.map((line, i) => `id: ${i + 1}\nevent: status\ndata: ${line}\n\n`);
  return all.slice(seen).join("");
}

function include<K>(groups: Map<K, Set<Stream>>, key: K, stream: Stream): void {
  groups.set(key, (groups.get(key) ?? new Set<Stream>()).add(stream));
}

function exclude<K>(groups: Map<K, Set<Stream>>, key: K, stream: Stream): void {
  const group = groups.get(key);
  group?.delete(stream);
  if (group?.size === 0) groups.delete(key);
}
