import { randomUUID } from "node:crypto";
import { setTimeout as pause } from "node:timers/promises";
import { ADMIN } from "../admin";
import { messageOf } from "../error-message";
import { Recorder } from "../history/recorder";
import type { Shop } from "../system/system";
import { eventually } from "../until";
import { Losses } from "./losses";
import { Readers } from "./readers";
import {
  CLIENT_TIMEOUT_MS,
  Window,
  type Adjustment,
  type Credentials,
  type Line,
  type LoadOptions,
  type LoadResponse,
  type OrderRecord,
} from "./records";
import { Sender } from "./sender";

export type { OrderRecord } from "./records";

const MAX_IN_FLIGHT = 48;
/** How many failed requests are described. */
const MAX_FAILED = 20;
export const PLENTY = 100_000;
const SCARCE = 40;

/** Clients of the public API that order, cancel, adjust stock, and retry requests without a response. */
export class Load {
  readonly orders = new Map<string, OrderRecord>();
  readonly adjustments: Adjustment[] = [];
  /** product → quantity at its creation */
  readonly products = new Map<string, number>();
  readonly violations: string[] = [];
  readonly losses = new Losses();
  /** The requests and responses of all clients. */
  readonly history = new Recorder();
  /** Units per product held by orders that none of our clients placed, as last recorded in the history. */
  readonly foreignUnits = new Map<string, number>();
  /** Whether a client that gets a 401 logs in again. */
  sessionsMayEnd = false;
  window = new Window();
  private readonly users: Credentials[] = [];
  /** Access tokens, by client. */
  tokens: string[] = [];
  /** Products that are never ordered; only their prices change. */
  readonly unorderedProducts: string[] = [];
  private admin = "";
  private loggingIn: Promise<void> | undefined;
  private plenty: string[] = [];
  private scarce: string[] = [];
  private timer: NodeJS.Timeout | undefined;
  private readonly inFlight = new Set<Promise<unknown>>();
  private lastResponseAt = 0;
  private readonly sender: Sender;
  readonly readers: Readers;
  private readonly clients: number;
  private readonly retryMs: number;
  private readonly withCancels: boolean;

  constructor(
    private readonly shop: Shop,
    private readonly random: () => number,
    { clients = 4, retryMs = 120_000, withCancels = true }: LoadOptions = {},
  ) {
    this.clients = clients;
    this.retryMs = retryMs;
    this.withCancels = withCancels;
    this.sender = new Sender(shop, this.history, this.violations);
    this.readers = new Readers(this, this.sender, random);
  }

  async setUp(): Promise<void> {
    await eventually("the whole shop is healthy", async () => (await fetch(`${this.shop.url}/health`)).ok, 30_000);
    for (let n = 0; n < this.clients; n++) this.users.push(await this.register());
    await this.logIn();
    for (let n = 0; n < 5; n++) this.plenty.push(await this.createProduct(PLENTY));
    for (let n = 0; n < 3; n++) this.scarce.push(await this.createProduct(SCARCE));
    for (let n = 0; n < 2; n++) this.unorderedProducts.push(await this.createProduct(SCARCE));
  }

  /** Registers a new account. */
  async register(email = `${randomUUID()}@shop.test`): Promise<Credentials> {
    const credentials = { email, password: "correct horse battery" };
    await this.retry(() => this.request("POST", "/register", credentials));
    return credentials;
  }

  async tokensOf(credentials: Credentials): Promise<{ access_token: string; refresh_token: string }> {
    const response = await this.retry(() => this.request("POST", "/token", credentials));
    if (response?.status !== 200) throw new Error(`login failed: ${response?.status ?? "no response"} ${response?.body ?? ""}`);
    return JSON.parse(response.body) as { access_token: string; refresh_token: string };
  }

  /** Logs in all users. Concurrent calls share one login. */
  private logIn(): Promise<void> {
    const all = async (): Promise<void> => {
      const granted: string[] = [];
      for (const user of [...this.users, ADMIN]) granted.push((await this.tokensOf(user)).access_token);
      this.admin = granted.pop() ?? "";
      this.tokens = granted;
    };
    return (this.loggingIn ??= all().finally(() => (this.loggingIn = undefined)));
  }

  async createProduct(quantity: number): Promise<string> {
    const product = { name: "Lamp", price: 19.99, quantity };
    // a product created without a response stays unused
    const response = await this.retryWithLogin(() => this.request("POST", "/products", product, this.tokens[0]));
    if (response?.status !== 201)
      throw new Error(`creating a product failed: ${response?.status ?? "no response"} ${response?.body ?? ""}`);
    const { id } = JSON.parse(response.body) as { id: string };
    this.products.set(id, quantity);
    return id;
  }

  /** Resets the counters. */
  openWindow(): void {
    this.window = new Window();
    this.lastResponseAt = Date.now();
  }

  /** @param rate requests per second; the readers send more, which the window doesn't count */
  start(rate: number): void {
    this.openWindow();
    this.readers.start(rate);
    this.timer = setInterval(() => {
      if (this.inFlight.size < MAX_IN_FLIGHT) this.begin(this.sendRandom());
    }, 1000 / rate);
  }

  /** Stops sending, and waits until every request in flight has its response or was abandoned. */
  async stop(): Promise<void> {
    clearInterval(this.timer);
    this.timer = undefined;
    await this.readers.stop();
    while (this.inFlight.size > 0) await Promise.race([...this.inFlight, pause(1_000)]);
  }

  private begin(work: Promise<unknown>): void {
    const done = work
      .catch((error: unknown) => this.violations.push(`a client failed: ${messageOf(error)}`))
      .finally(() => this.inFlight.delete(done));
    this.inFlight.add(done);
  }

  private sendRandom(): Promise<unknown> {
    const dice = this.random();
    const known = this.pick([...this.orders.values()].slice(-200).filter((order) => order.status === 201 && !order.belongsToFault));
    if (dice < 0.12 && this.withCancels && known !== undefined && known.cancel === undefined) return this.cancel(known);
    if (dice < 0.22 && known !== undefined) return this.repeat(known);
    if (dice < 0.3) return this.adjust(this.pick(this.scarce) ?? "", 1 + Math.floor(this.random() * 9));
    return this.order(this.basket(), false);
  }

  private pick<T>(from: readonly T[]): T | undefined {
    return from[Math.floor(this.random() * from.length)];
  }

  /** Several products in random order; sometimes more than is in stock. */
  private basket(): Line[] {
    const dice = this.random();
    if (dice < 0.04) return [{ product_id: this.pick(this.scarce) ?? "", quantity: 9_999 }];
    const from = dice < 0.3 ? [...this.plenty, ...this.scarce] : this.plenty;
    const shuffled = from.map((id) => [this.random(), id] as const).sort(([a], [b]) => a - b);
    return shuffled
      .slice(0, 1 + Math.floor(this.random() * 3))
      .map(([, id]) => ({ product_id: id, quantity: 1 + Math.floor(this.random() * 3) }));
  }

  /** Orders with a new key, and retries until there is a definite response. */
  async order(items: Line[], belongsToFault = true, client = Math.floor(this.random() * this.clients)): Promise<OrderRecord> {
    const record: OrderRecord = { key: randomUUID(), client, items, attempts: 0, at: Date.now(), belongsToFault };
    this.orders.set(record.key, record);
    const response = await this.retryWithLogin(() => {
      record.attempts++;
      return this.post(record);
    });
    if (response !== undefined) this.recordOrder(record, response);
    return record;
  }

  private recordOrder(record: OrderRecord, response: LoadResponse): void {
    Object.assign(record, response);
    if (response.status === 201) {
      this.window.accepted++;
      record.id = (JSON.parse(response.body) as { id: string }).id;
      this.readers.afterWrite(record);
    } else if (response.status !== 409) this.violations.push(`unexpected response to an order: ${response.status} ${response.body}`);
  }

  /** Repeats an order that had a response: the response must be identical. If the order was lost, this creates a new one. */
  async repeat(record: OrderRecord): Promise<void> {
    this.window.repeats++;
    const { status, body, id } = record;
    const response = await this.retryWithLogin(() => this.post(record));
    if (response === undefined || (response.status === status && response.body === body) || record.id !== id) return;
    if (this.losses.mayHave("orders", record)) {
      this.losses.counts.orders++;
      delete record.cancel;
      this.recordOrder(record, response);
    } else
      this.violations.push(`the response to key ${record.key} was ${status ?? ""} ${body ?? ""}, then ${response.status} ${response.body}`);
  }

  async cancel(record: OrderRecord): Promise<void> {
    record.cancel = { status: 0 };
    const response = await this.retryWithLogin(() =>
      this.request("POST", `/orders/${record.id ?? ""}/cancel`, undefined, this.tokens[record.client]),
    );
    if (response === undefined) return;
    record.cancel = response;
    this.readers.afterWrite(record);
    const isLost = response.status === 404 && this.losses.mayHave("orders", record);
    if (response.status !== 200 && response.status !== 409 && !isLost)
      this.violations.push(`unexpected response to a cancel: ${response.status} ${response.body}`);
  }

  /** Adjusts stock. Without a key it can't be retried, so without a response it may have been applied. */
  async adjust(product_id: string, delta: number, reason = `chaos ${randomUUID()}`): Promise<void> {
    const adjustment: Adjustment = { reason, product_id, delta };
    this.adjustments.push(adjustment);
    const response = await this.request("POST", `/products/${product_id}/stock`, { delta, reason }, this.tokens[0]);
    const { sentAt, receivedAt, status } = response;
    if (status > 0 && status < 500) Object.assign(adjustment, { sentAt, receivedAt, status });
    this.readers.afterWrite(product_id);
  }

  /** Sends a request as the admin until there is a definite response. */
  asAdmin(method: string, path: string, body?: unknown): Promise<LoadResponse | undefined> {
    return this.retryWithLogin(() => this.request(method, path, body, this.admin, Math.min(60_000, this.retryMs)));
  }

  private post({ key, client, items }: OrderRecord): Promise<LoadResponse> {
    return this.request("POST", "/orders", { items }, this.tokens[client], CLIENT_TIMEOUT_MS, { "idempotency-key": key });
  }

  /** Retries, and logs in again after a 401 if sessions may end. */
  private retryWithLogin(attempt: () => Promise<LoadResponse>): Promise<LoadResponse | undefined> {
    return this.retry(async () => {
      const response = await attempt();
      if (response.status !== 401 || !this.sessionsMayEnd) return response;
      await this.logIn();
      return { ...response, status: 0 }; // retry with the new tokens
    });
  }

  /** Retries after a 5xx, a timeout or a lost connection, and while the first attempt is still in flight. */
  private async retry(attempt: () => Promise<LoadResponse>): Promise<LoadResponse | undefined> {
    const deadline = Date.now() + this.retryMs;
    for (let repeats = 0; Date.now() < deadline; repeats++) {
      if (repeats > 0) this.window.repeats++;
      const response = await attempt();
      if (response.status > 0 && response.status < 500 && !response.body.includes("IDEMPOTENCY_IN_FLIGHT")) return response;
      await pause(300 + 900 * this.random());
    }
    return undefined;
  }

  /** @returns status 0 if there was no response, or only the balancer's */
  async request(
    method: string,
    path: string,
    body?: unknown,
    token?: string,
    timeout = CLIENT_TIMEOUT_MS,
    headers: Record<string, string> = {},
  ): Promise<LoadResponse> {
    const response = await this.sender.send({ method, path, body, token, headers }, timeout);
    // an audit or a repair may take longer
    if (timeout <= CLIENT_TIMEOUT_MS || response.status === 0) this.count(response, `${method} ${path}`);
    return response;
  }

  private count({ status, body, sentAt, receivedAt }: LoadResponse, what: string): void {
    const { window } = this;
    window.slowest = Math.max(window.slowest, receivedAt - sentAt);
    if (status === 0 || status >= 500) {
      window.failures++;
      if (window.failed.length < MAX_FAILED) window.failed.push(`${what}: ${status || "no response"} ${body}`);
      return;
    }
    const now = Date.now();
    window.silence = Math.max(window.silence, now - this.lastResponseAt);
    this.lastResponseAt = now;
  }
}
