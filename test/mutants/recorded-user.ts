import { randomUUID } from "node:crypto";
import { Agent, fetch as fetchFrom, type Response } from "undici";
import type { Status } from "../../contracts/orders";
import type { Of } from "../../testkit/history/operation";
import { followOrder, walkOrders } from "../../testkit/history/readers";
import { userOf, type Recorder } from "../../testkit/history/recorder";
import { until } from "../../testkit/until";

const DEADLINE_MS = 10_000;
/** A correct shop needs far less. Limited, since a mutant may never get there. */
const SOON_MS = 5_000;
const AGENT = new Agent();

interface RequestOptions {
  body?: unknown;
  headers?: Record<string, string>;
  /** The number of the gateway; by default, they take turns. */
  at?: number;
}

export interface Received {
  status: number;
  text: string;
  /** This and the following come from the response; "" if absent. */
  id: string;
  orderStatus: string;
  etag: string;
}

/** An open stream. */
export interface Following {
  has(status: Status): Promise<void>;
  /** Waits until the server has ended it; after a timeout, disconnects. */
  end(): Promise<void>;
}

/** A user whose calls are recorded. */
export class RecordedUser {
  private turn = 0;

  readonly user: string;

  constructor(
    private readonly gateways: readonly string[],
    private readonly history: Recorder,
    private readonly token: string,
  ) {
    this.user = userOf(token).user;
  }

  async send(method: string, path: string, { body, headers = {}, at }: RequestOptions = {}): Promise<Received> {
    const begin = performance.now();
    const { token } = this;
    const response = await this.open(path, headers, AbortSignal.timeout(DEADLINE_MS), { method, body, at }).catch(() => undefined);
    const text = await response?.text().catch(() => undefined);
    const whole = response !== undefined && text !== undefined ? { status: response.status, headers: response.headers, text } : undefined;
    const gateway = at === undefined ? {} : { gateway: String(at) };
    this.history.record({ method, path, body, headers, token, ...gateway, begin, end: performance.now(), response: whole });
    const first = (name: string): string => new RegExp(`"${name}":"([^"]+)"`).exec(whole?.text ?? "")?.[1] ?? "";
    const etag = whole?.headers.get("etag") ?? "";
    return { status: whole?.status ?? 0, text: whole?.text ?? "", id: first("id"), orderStatus: first("status"), etag };
  }

  private open(
    path: string,
    headers: Record<string, string>,
    signal: AbortSignal,
    { method = "GET", body, at = this.turn++ }: { method?: string; body?: unknown; at?: number | undefined } = {},
  ): Promise<Response> {
    return fetchFrom((this.gateways[at % this.gateways.length] ?? "") + path, {
      dispatcher: AGENT,
      method,
      headers: {
        Authorization: `Bearer ${this.token}`,
        ...(body !== undefined && { "Content-Type": "application/json" }),
        ...headers,
      },
      ...(body !== undefined && { body: JSON.stringify(body) }),
      signal,
    });
  }

  /** @returns its id */
  async createProduct(quantity: number): Promise<string> {
    return (await this.send("POST", "/products", { body: { name: "Lamp", price: 19.99, quantity } })).id;
  }

  product = (id: string): Promise<Received> => this.send("GET", `/products/${id}`);

  reprice = (id: string, price: number, etag: string): Promise<Received> =>
    this.send("PATCH", `/products/${id}`, { body: { price }, headers: { "if-match": etag } });

  order = (product_id: string, quantity: number, key = randomUUID()): Promise<Received> =>
    this.send("POST", "/orders", { body: { items: [{ product_id, quantity }] }, headers: { "idempotency-key": key } });

  read = (order: string, at?: number): Promise<Received> => this.send("GET", `/orders/${order}`, at === undefined ? {} : { at });

  cancel = (order: string): Promise<Received> => this.send("POST", `/orders/${order}/cancel`);

  /** Reads an order until it has a status. @throws if it doesn't reach it in time */
  async becomes(order: string, status: Status, at?: number): Promise<void> {
    await until(`order ${order} is ${status}`, async () => (await this.read(order, at)).orderStatus === status, SOON_MS);
  }

  /** Orders, and waits until the order is CONFIRMED. @returns its id */
  async buys(product: string, quantity: number): Promise<string> {
    const { id } = await this.order(product, quantity);
    await this.becomes(id, "CONFIRMED");
    return id;
  }

  async walk(limit: number): Promise<void> {
    const get = (path: string) => this.send("GET", path);
    this.history.add(await walkOrders(get, this.token, limit));
  }

  follow(order: string): Following {
    const stream = new AbortController();
    const seen: Status[] = [];
    const open = (path: string, headers: Record<string, string>, signal: AbortSignal) => this.open(path, headers, signal);
    let ended: Of<"order.stream"> | undefined;
    const done = followOrder(open, this.token, order, stream.signal, (status) => seen.push(status)).then((operation) => {
      ended = operation;
      this.history.add(operation);
    });
    return {
      has: (status) => until(`the stream has ${status}`, () => ended !== undefined || seen.includes(status), SOON_MS),
      end: async () => {
        await until("the stream ends", () => ended !== undefined, 2_000).catch(() => stream.abort());
        await done;
      },
    };
  }
}
