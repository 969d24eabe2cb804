import type { ServerResponse } from "node:http";
import { errorCode, isUnreachable, problem } from "../../broker/errors";
import { currentRequestId, withRequest } from "../../broker/request";
import { isFinal, type Order } from "../../contracts/orders";
import type { Caller } from "../../contracts/users";
import type { Requester } from "../../mixins/batching";
import { shareOf } from "../../mixins/fair-queue";
import type { TokenVerifier } from "./access";
import type { Gather } from "./gather";

/** An order whose changes its caller wants to hear. */
export interface Following {
  order: Order;
  caller: Caller;
  /** How much of its history the client has: the id of the last event that it saw. */
  seen: number;
}

export interface StreamLimits {
  /** Most streams of one user, and of all, on one gateway; an address holds a quarter of these at most. */
  ofOneUser: number;
  ofAll: number;
  /** Milliseconds after which an order is read again at the latest, for `order.changed` may get lost. */
  readEvery: number;
  /** Milliseconds after which a stream ends; its client resumes, here or at another gateway. */
  life: number;
}

const LIMITS: StreamLimits = { ofOneUser: 10, ofAll: 1_000, readEvery: 5_000, life: 900_000 };

/** Milliseconds after which a client whose stream has ended comes back. */
const RETRY = 2_000;
/** Milliseconds between two looks at whose session has ended: with the second for which gateways do not ask, less than 2 s. */
const WATCH_MS = 250;
/** Bytes that wait for a client that does not read; more than a whole history has. */
const MAX_UNREAD = 16_384;

/** Nothing is served behind a stream: it is the last response of its connection (RFC 9112, 9.6). */
export const EVENT_STREAM = { "Content-Type": "text/event-stream", "X-Accel-Buffering": "no", Connection: "close" };

/** The event streams that are open on one gateway. While there is none, there is no timer, and nothing to do for a change. */
export class Streams {
  private readonly all = new Set<Stream>();
  private readonly byUser = new Map<string, Set<Stream>>();
  private readonly byAddress = new Map<string, Set<Stream>>();
  private readonly byOrder = new Map<string, Set<Stream>>();
  private readonly limits: StreamLimits;
  private ended = false;
  private watching: NodeJS.Timeout | undefined;

  constructor(
    private readonly gather: Pick<Gather, "order">,
    private readonly verifier: Pick<TokenVerifier, "verify" | "refresh" | "isCurrent">,
    limits: Partial<StreamLimits> = {},
  ) {
    this.limits = { ...LIMITS, ...limits };
  }

  /**
   * Takes a place until the stream's `close`. Nothing is written before the stream's `begin`.
   * @throws TOO_MANY_REQUESTS where the user or the address has too many, SERVICE_UNAVAILABLE where the gateway has, or is about
   * to stop
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

    // It outlives the request that opened it, and its deadline.
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

  /** These orders have changed; of interest are those that somebody follows. */
  changed(orders: readonly { order_id: string }[]): void {
    for (const { order_id } of orders) for (const stream of this.byOrder.get(order_id) ?? []) stream.look();
  }

  /** Ends all, and opens no more. */
  end(): void {
    this.ended = true;
    for (const stream of this.all) stream.end();
  }

  /** Ends the streams of those whose session has ended or whose role has changed: who may come back, does. */
  private endRevoked(): void {
    void this.verifier.refresh();
    for (const stream of this.all) if (!this.verifier.isCurrent(stream.caller)) stream.end();
  }

  /** As the token's bearer may see it now: tokens expire and are revoked while a stream is open. */
  private async read(id: string, token: string, requester: Requester): Promise<Order> {
    return this.gather.order(id, await this.verifier.verify(token), requester);
  }
}

/** One response that goes on: an order's history, and each change as it is heard of or found. */
export class Stream {
  /** Its response is over: gives its place back. */
  close: () => void = () => undefined;
  private isOpen = true;
  private isLooking = false;
  private mayBeNew = false;
  private timer: NodeJS.Timeout | undefined;
  private readonly until: number;
  private readonly requestId = currentRequestId(); // a change is heard in another's name

  constructor(
    private readonly res: ServerResponse,
    readonly caller: Caller,
    private seen: number,
    private readonly read: () => Promise<Order>,
    private readonly limits: StreamLimits,
  ) {
    this.until = performance.now() + limits.life;
  }

  /** After the head of the response. */
  begin(order: Order): void {
    this.write(`retry: ${RETRY}\n\n`);
    this.tell(order);
    this.look(); // what changed since the order was read was told before this stream was known
  }

  /** Reads the order again, and tells what is new. What is heard meanwhile may be newer than what is read: then once more. */
  look(): void {
    this.mayBeNew = true;
    if (this.isOpen && !this.isLooking) void withRequest(this.requestId, Infinity, () => this.catchUp());
  }

  end(): void {
    if (!this.isOpen) return;
    this.stop();
    this.res.end();
  }

  /** Nothing is written any more. */
  stop(): void {
    this.isOpen = false;
    clearTimeout(this.timer);
  }

  private async catchUp(): Promise<void> {
    clearTimeout(this.timer);
    this.isLooking = true;
    while (this.isOpen && this.mayBeNew) {
      this.mayBeNew = false;
      try {
        this.tell(await this.read());
      } catch (error) {
        // The token is not valid any more, or the order is not to be seen. What is unavailable or busy now is read again later.
        if (!isUnreachable(error) && errorCode(error) !== "TOO_MANY_REQUESTS") this.end();
      }
    }
    this.isLooking = false;
    if (this.isOpen) this.wait();
  }

  /** Streams that began together, at a gateway's start, do not read together for ever. */
  private wait(): void {
    const spread = this.limits.readEvery * (0.8 + 0.2 * Math.random());
    this.timer = setTimeout(
      () => {
        if (performance.now() >= this.until) {
          this.end();
          return;
        }
        this.write(": \n\n"); // keeps proxies from ending what is silent
        this.look();
      },
      Math.min(spread, this.until - performance.now()),
    );
  }

  private tell(order: Order): void {
    const text = events(order, this.seen);
    this.seen = order.history.length;
    if (text !== "") this.write(text);
    if (isFinal(order.status)) this.end();
  }

  private write(text: string): void {
    if (!this.isOpen) return;
    this.res.write(text);
    if (this.res.writableLength <= MAX_UNREAD) return;
    this.stop();
    this.res.destroy();
  }
}

/** What is new of an order's history, one line of JSON each (WHATWG HTML, 9.2.5); the id is the position in the history. */
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
