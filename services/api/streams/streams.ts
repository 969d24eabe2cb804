import type { ServerResponse } from "node:http";
import { problem } from "../../../broker/errors";
import type { Order } from "../../../contracts/orders";
import type { Caller } from "../../../contracts/users";
import type { Requester } from "../../../mixins/batching";
import { shareOf } from "../../../mixins/fair-queue";
import type { TokenVerifier } from "../auth/token-verifier";
import type { BatchedCalls } from "../batched-calls";
import type { Snapshots } from "../operations/snapshots";
import { OperationsStream } from "./operations-stream";
import { OrderStream, type Following } from "./order-stream";
import type { Stream } from "./stream";

/** An admin who watches the whole shop. */
export interface Watching {
  caller: Caller;
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

/** Interval of the check for ended sessions, in ms. Together with the polling interval of 1 s, a stream ends within 2 s. */
const WATCH_MS = 250;

/** The open event streams of one gateway. Without any there is no timer, and a change costs nothing. */
export class Streams {
  private readonly all = new Set<Stream>();
  private readonly byUser = new Map<string, Set<Stream>>();
  private readonly byAddress = new Map<string, Set<Stream>>();
  private readonly byOrder = new Map<string, Set<OrderStream>>();
  private readonly limits: StreamLimits;
  private ended = false;
  private watching: NodeJS.Timeout | undefined;

  constructor(
    private readonly batched: Pick<BatchedCalls, "order">,
    private readonly verifier: Pick<TokenVerifier, "verify" | "refresh" | "isCurrent">,
    private readonly snapshots: Snapshots,
    limits: Partial<StreamLimits> = {},
  ) {
    this.limits = { ...LIMITS, ...limits };
  }

  /**
   * Registers a stream until its `close`. Nothing is written before its `begin`.
   * @throws TOO_MANY_REQUESTS if the user or the address has too many streams, SERVICE_UNAVAILABLE if the gateway is at its limit or shutting
   * down
   */
  open(res: ServerResponse, wanted: Following | Watching, token: string, requester: Requester): Stream {
    const { ofOneUser, ofAll } = this.limits;
    const { caller } = wanted;
    const { address } = requester;
    if ((this.byAddress.get(address)?.size ?? 0) >= shareOf(ofAll))
      throw problem("TOO_MANY_REQUESTS", "too many streams are open from your address: close one first");
    if ((this.byUser.get(caller.id)?.size ?? 0) >= ofOneUser)
      throw problem("TOO_MANY_REQUESTS", `${ofOneUser} streams of yours are open here: close one first`);
    if (this.ended || this.all.size >= ofAll) throw problem("SERVICE_UNAVAILABLE", "no stream can be opened here now");

    const stream = "order" in wanted ? this.follow(res, wanted, token, address) : this.watch(res, caller, token);
    this.all.add(stream);
    this.watching ??= setInterval(() => {
      this.endRevoked();
    }, WATCH_MS).unref();
    include(this.byAddress, address, stream);
    include(this.byUser, caller.id, stream);
    const orderId = "order" in wanted ? wanted.order.id : undefined;
    if (stream instanceof OrderStream && orderId !== undefined) include(this.byOrder, orderId, stream);
    stream.close = () => {
      stream.stop();
      this.all.delete(stream);
      exclude(this.byAddress, address, stream);
      exclude(this.byUser, caller.id, stream);
      if (stream instanceof OrderStream && orderId !== undefined) exclude(this.byOrder, orderId, stream);
      if (this.all.size > 0) return;
      clearInterval(this.watching);
      this.watching = undefined;
    };
    return stream;
  }

  private follow(res: ServerResponse, following: Following, token: string, address: string): OrderStream {
    // Not the request itself: the stream outlives it and its deadline.
    const reader: Requester = { address, user: following.caller.id, isWanted: () => !res.destroyed };
    return new OrderStream(res, following, () => this.read(following.order.id, token, reader), this.limits);
  }

  private watch(res: ServerResponse, caller: Caller, token: string): OperationsStream {
    return new OperationsStream(res, caller, () => this.verifier.verify(token), this.snapshots, this.limits.lifeMs);
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

function include<K, S>(groups: Map<K, Set<S>>, key: K, stream: S): void {
  groups.set(key, (groups.get(key) ?? new Set<S>()).add(stream));
}

function exclude<K, S>(groups: Map<K, Set<S>>, key: K, stream: S): void {
  const group = groups.get(key);
  group?.delete(stream);
  if (group?.size === 0) groups.delete(key);
}
