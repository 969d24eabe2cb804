import { setTimeout as pause } from "node:timers/promises";
import { messageOf } from "../error-message";
import { followOrder, walkOrders } from "../history/readers";
import type { Recorder } from "../history/recorder";
import { eventually } from "../until";
import { CLIENT_TIMEOUT_MS, type LoadResponse, type OrderRecord } from "./records";
import type { LoadRequest, Sender } from "./sender";

/** What readers need from the writing clients. */
interface Writers {
  readonly history: Recorder;
  readonly orders: ReadonlyMap<string, OrderRecord>;
  readonly products: ReadonlyMap<string, number>;
  readonly violations: string[];
  /** Access tokens, by client. */
  readonly tokens: readonly string[];
  /** Products of the first client that are never ordered. */
  readonly unorderedProducts: readonly string[];
}

/** Reads as a share of the writers' requests. With the reads right after a write, one request in five is a read. */
const SHARE = 1 / 6;
/** The share of writes that the client reads back at once. */
const READ_BACK = 1 / 10;
const MAX_IN_FLIGHT = 16;
const MAX_STREAMS = 4;
const FOLLOWED_MS = 15_000;
/** The approximate number of pages of a client's order list. */
const PAGES = 6;

/** Readers beside the writing clients of a load: they read back writes, page through lists, follow orders and change prices with If-Match. */
export class Readers {
  private timer: NodeJS.Timeout | undefined;
  private readonly inFlight = new Set<Promise<unknown>>();
  private readonly streams = new Set<AbortController>();

  constructor(
    private readonly writers: Writers,
    private readonly sender: Sender,
    private readonly random: () => number,
  ) {}

  /** @param rate requests per second of the writing clients */
  start(rate: number): void {
    this.timer = setInterval(() => this.begin(() => this.readRandom()), 1000 / (rate * SHARE));
  }

  /** Closes all streams and waits until every request has its response. */
  async stop(): Promise<void> {
    clearInterval(this.timer);
    this.timer = undefined;
    for (const stream of this.streams) stream.abort();
    while (this.inFlight.size > 0) await Promise.race([...this.inFlight, pause(1_000)]);
  }

  /** Reads each of these until there is a response, which a healthy shop returns at once. */
  async readAll(products: readonly string[], orders: readonly OrderRecord[]): Promise<void> {
    const work = [...products.map((id) => () => this.readProduct(id)), ...orders.map((order) => () => this.readOrder(order))].values();
    const one = async (): Promise<void> => {
      for (const read of work)
        await eventually("products and orders can be read", async () => [200, 404].includes((await read()).status), CLIENT_TIMEOUT_MS, 200);
    };
    await Promise.all(Array.from({ length: MAX_IN_FLIGHT }, one));
  }

  /** Called after the response to a write; in some cases reads it back at once. */
  afterWrite(what: OrderRecord | string): void {
    if (this.timer === undefined || this.random() >= READ_BACK) return;
    this.begin(() => (typeof what === "string" ? this.readProduct(what) : this.readOrder(what)));
  }

  private begin(work: () => Promise<unknown>): void {
    if (this.inFlight.size >= MAX_IN_FLIGHT) return;
    const done = work()
      .catch((error: unknown) => this.writers.violations.push(`a reader failed: ${messageOf(error)}`))
      .finally(() => this.inFlight.delete(done));
    this.inFlight.add(done);
  }

  private async readRandom(): Promise<unknown> {
    const dice = this.random();
    const known = [...this.writers.orders.values()].slice(-50).filter(({ id }) => id !== undefined);
    const order = known[Math.floor(this.random() * known.length)];
    if (dice < 0.35 || order === undefined) return this.readProduct(this.pick([...this.writers.products.keys()]));
    if (dice < 0.6) return this.readOrder(order);
    if (dice < 0.65) return this.readOrder(order, 1); // another client's
    if (dice < 0.72) return this.walk(order.client);
    if (dice < 0.88) return this.follow(known.at(-1) ?? order);
    return this.reprice(dice < 0.91 ? this.pick([...this.writers.products.keys()]) : this.pick(this.writers.unorderedProducts));
  }

  private pick = (from: readonly string[]): string => from[Math.floor(this.random() * from.length)] ?? "";

  private tokenOf = (client: number): string => this.writers.tokens[client % this.writers.tokens.length] ?? "";

  private get(path: string, token?: string): Promise<LoadResponse> {
    return this.send({ method: "GET", path, token });
  }

  private send(request: LoadRequest): Promise<LoadResponse> {
    return this.sender.send(request, CLIENT_TIMEOUT_MS);
  }

  private readProduct = (id: string): Promise<LoadResponse> => this.get(`/products/${id}`);

  private readOrder({ id = "", client }: OrderRecord, further = 0): Promise<LoadResponse> {
    return this.get(`/orders/${id}`, this.tokenOf(client + further));
  }

  private async walk(client: number): Promise<void> {
    const token = this.tokenOf(client);
    const own = this.writers.orders.size / this.writers.tokens.length;
    const limit = Math.min(100, Math.max(2, Math.ceil(own / PAGES)));
    const get = async (path: string) => {
      const { status, body: text } = await this.get(path, token);
      return status === 0 ? undefined : { status, text };
    };
    this.writers.history.add(await walkOrders(get, token, limit));
  }

  /** Follows an order until it is final or FOLLOWED_MS have passed. Not in `inFlight`, since an order may stay pending for long. */
  private follow({ id = "", client }: OrderRecord): Promise<void> {
    if (this.streams.size >= MAX_STREAMS) return Promise.resolve();
    const stream = new AbortController();
    const timer = setTimeout(() => stream.abort(), FOLLOWED_MS);
    this.streams.add(stream);
    const token = this.tokenOf(client);
    const open = (path: string, headers: Record<string, string>, signal: AbortSignal) =>
      this.sender.open({ method: "GET", path, token, headers }, signal);
    return followOrder(open, token, id, stream.signal)
      .then((operation) => this.writers.history.add(operation))
      .finally(() => {
        clearTimeout(timer);
        this.streams.delete(stream);
      });
  }

  /** Sends two changes of the same version at the same time. */
  private async reprice(product: string): Promise<void> {
    const { etag } = await this.readProduct(product);
    if (etag === null) return;
    const price = 1 + Math.floor(this.random() * 10_000) / 100;
    const change = (more: number): Promise<LoadResponse> =>
      this.send({
        method: "PATCH",
        path: `/products/${product}`,
        body: { price: price + more },
        token: this.tokenOf(0),
        headers: { "if-match": etag },
      });
    await Promise.all([change(0), change(1)]);
    await this.readProduct(product);
  }
}
