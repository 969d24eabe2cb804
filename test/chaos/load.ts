import { randomUUID } from "node:crypto";
import { Agent, fetch as fetchFrom } from "undici";
import { BALANCER } from "./balancer";
import { ADMIN, type Shop } from "./system";
import { messageOf, pause, until } from "./wait";

export interface Line {
  product_id: string;
  quantity: number;
}

/** What the clients know of one order: its key, and the first definite answer to it. */
export interface OrderRecord {
  key: string;
  client: number;
  items: Line[];
  attempts: number;
  status?: number;
  body?: string;
  id?: string;
  /** when the first attempt left */
  at: number;
  cancel?: { status: number };
  /** a fault's own: nobody cancels it by chance */
  spared: boolean;
}

export interface Adjustment {
  reason: string;
  product_id: string;
  delta: number;
  /** undefined: may have been applied */
  status?: number;
}

export interface LoadOptions {
  clients?: number;
  /** how long a client repeats what is not answered; nobody waits long for a shop that must fail */
  giveUpMs?: number;
}

interface Answer {
  status: number;
  body: string;
}

/** What happened while a fault was on. */
export class Window {
  accepted = 0;
  repeats = 0;
  /** 5xx answers, and requests that ended without an answer */
  failures = 0;
  silence = 0;
  slowest = 0;
}

const CLIENT_TIMEOUT_MS = 8_000;
const MOST_UNDER_WAY = 48;
/** Requests come from several addresses in turn, as those of many people do. */
const AGENTS = [2, 3, 4, 5].map((n) => new Agent({ connect: { localAddress: `127.0.0.${n}` } }));
export const PLENTY = 100_000;
const SCARCE = 40;

/** Clients of the public API that order, cancel, adjust, and repeat what was not answered. */
export class Load {
  readonly orders = new Map<string, OrderRecord>();
  readonly adjustments: Adjustment[] = [];
  /** product → quantity at its creation */
  readonly products = new Map<string, number>();
  readonly violations: string[] = [];
  window = new Window();
  private tokens: string[] = [];
  private admin = "";
  private plenty: string[] = [];
  private scarce: string[] = [];
  private timer: NodeJS.Timeout | undefined;
  private readonly underWay = new Set<Promise<unknown>>();
  private lastAnswer = 0;
  private requests = 0;
  private readonly clients: number;
  private readonly giveUpMs: number;

  constructor(
    private readonly shop: Shop,
    private readonly random: () => number,
    { clients = 4, giveUpMs = 120_000 }: LoadOptions = {},
  ) {
    this.clients = clients;
    this.giveUpMs = giveUpMs;
  }

  async setUp(): Promise<void> {
    await until("the whole shop answers", async () => (await fetch(`${this.shop.url}/health`)).ok, 30_000);
    for (let n = 0; n < this.clients; n++) {
      const credentials = { email: `${randomUUID()}@shop.test`, password: "correct horse battery" };
      await this.request("POST", "/register", credentials);
      this.tokens.push(await this.login(credentials));
    }
    this.admin = await this.login(ADMIN);
    for (let n = 0; n < 5; n++) this.plenty.push(await this.createProduct(PLENTY));
    for (let n = 0; n < 3; n++) this.scarce.push(await this.createProduct(SCARCE));
  }

  private async login(credentials: { email: string; password: string }): Promise<string> {
    const { status, body } = await this.request("POST", "/token", credentials);
    if (status !== 200) throw new Error(`no login: ${status} ${body}`);
    return (JSON.parse(body) as { access_token: string }).access_token;
  }

  async createProduct(quantity: number): Promise<string> {
    const product = { name: "Lamp", price: 19.99, quantity };
    // one that was made without an answer stays nobody's
    const answer = await this.insist(() => this.request("POST", "/products", product, this.tokens[0]));
    if (answer?.status !== 201) throw new Error(`no product: ${answer?.status ?? "no answer"} ${answer?.body ?? ""}`);
    const { id } = JSON.parse(answer.body) as { id: string };
    this.products.set(id, quantity);
    return id;
  }

  /** Begins anew to count. */
  openWindow(): void {
    this.window = new Window();
    this.lastAnswer = Date.now();
  }

  /** @param rate requests a second */
  start(rate: number): void {
    this.openWindow();
    this.timer = setInterval(() => {
      if (this.underWay.size < MOST_UNDER_WAY) this.begin(this.something());
    }, 1000 / rate);
  }

  /** No new requests; waits until each that is under way has its answer or is given up. */
  async stop(): Promise<void> {
    clearInterval(this.timer);
    this.timer = undefined;
    while (this.underWay.size > 0) await Promise.race([...this.underWay, pause(1_000)]);
  }

  private begin(work: Promise<unknown>): void {
    const done = work
      .catch((error: unknown) => this.violations.push(`a client failed: ${messageOf(error)}`))
      .finally(() => this.underWay.delete(done));
    this.underWay.add(done);
  }

  private something(): Promise<unknown> {
    const dice = this.random();
    const known = this.pick([...this.orders.values()].slice(-200).filter((order) => order.status === 201 && !order.spared));
    if (dice < 0.12 && known !== undefined && known.cancel === undefined) return this.cancel(known);
    if (dice < 0.22 && known !== undefined) return this.repeat(known);
    if (dice < 0.3) return this.adjust(this.pick(this.scarce) ?? "", 1 + Math.floor(this.random() * 9));
    return this.order(this.basket(), false);
  }

  private pick<T>(from: readonly T[]): T | undefined {
    return from[Math.floor(this.random() * from.length)];
  }

  /** Several products, in any order; now and then more than there is. */
  private basket(): Line[] {
    const dice = this.random();
    if (dice < 0.04) return [{ product_id: this.pick(this.scarce) ?? "", quantity: 9_999 }];
    const from = dice < 0.3 ? [...this.plenty, ...this.scarce] : this.plenty;
    const shuffled = from.map((id) => [this.random(), id] as const).sort(([a], [b]) => a - b);
    return shuffled
      .slice(0, 1 + Math.floor(this.random() * 3))
      .map(([, id]) => ({ product_id: id, quantity: 1 + Math.floor(this.random() * 3) }));
  }

  /** Orders under a new key, until there is a definite answer. */
  async order(items: Line[], spared = true): Promise<OrderRecord> {
    const client = Math.floor(this.random() * this.clients);
    const record: OrderRecord = { key: randomUUID(), client, items, attempts: 0, at: Date.now(), spared };
    this.orders.set(record.key, record);
    const answer = await this.insist(() => {
      record.attempts++;
      return this.post(record);
    });
    if (answer === undefined) return record;
    Object.assign(record, answer);
    if (answer.status === 201) {
      this.window.accepted++;
      record.id = (JSON.parse(answer.body) as { id: string }).id;
    } else if (answer.status !== 409) this.violations.push(`an order was answered ${answer.status}: ${answer.body}`);
    return record;
  }

  /** Sends an answered order again: the answer must be the same to the letter. */
  async repeat(record: OrderRecord): Promise<void> {
    this.window.repeats++;
    const answer = await this.insist(() => this.post(record));
    if (answer !== undefined && (answer.status !== record.status || answer.body !== record.body))
      this.violations.push(
        `key ${record.key} was answered ${record.status ?? ""} ${record.body ?? ""}, then ${answer.status} ${answer.body}`,
      );
  }

  async cancel(record: OrderRecord): Promise<void> {
    record.cancel = { status: 0 };
    const answer = await this.insist(() =>
      this.request("POST", `/orders/${record.id ?? ""}/cancel`, undefined, this.tokens[record.client]),
    );
    if (answer === undefined) return;
    record.cancel = answer;
    if (answer.status !== 200 && answer.status !== 409) this.violations.push(`a cancel was answered ${answer.status}: ${answer.body}`);
  }

  /** Has no key, so it is never repeated: without an answer it may have been applied. */
  async adjust(product_id: string, delta: number, reason = `chaos ${randomUUID()}`): Promise<void> {
    const adjustment: Adjustment = { reason, product_id, delta };
    this.adjustments.push(adjustment);
    const answer = await this.request("POST", `/products/${product_id}/stock`, { delta, reason }, this.tokens[0]);
    if (answer.status > 0 && answer.status < 500) adjustment.status = answer.status;
  }

  /** As the admin, until there is a definite answer. */
  asAdmin(method: string, path: string): Promise<Answer | undefined> {
    return this.insist(() => this.request(method, path, undefined, this.admin, Math.min(60_000, this.giveUpMs)));
  }

  private post({ key, client, items }: OrderRecord): Promise<Answer> {
    return this.request("POST", "/orders", { items }, this.tokens[client], CLIENT_TIMEOUT_MS, { "Idempotency-Key": key });
  }

  /** Repeats after a 5xx, a time-out or a broken connection, and where the first attempt is still under way. */
  private async insist(attempt: () => Promise<Answer>): Promise<Answer | undefined> {
    const deadline = Date.now() + this.giveUpMs;
    for (let repeats = 0; Date.now() < deadline; repeats++) {
      if (repeats > 0) this.window.repeats++;
      const answer = await attempt();
      if (answer.status > 0 && answer.status < 500 && !answer.body.includes("IDEMPOTENCY_IN_FLIGHT")) return answer;
      await pause(300 + 900 * this.random());
    }
    return undefined;
  }

  /** @returns status 0 where there was no answer, or none of the shop's */
  private async request(
    method: string,
    path: string,
    body?: unknown,
    token?: string,
    timeout = CLIENT_TIMEOUT_MS,
    more: Record<string, string> = {},
  ): Promise<Answer> {
    const since = Date.now();
    const headers = {
      ...(body !== undefined && { "Content-Type": "application/json" }),
      ...(token && { Authorization: `Bearer ${token}` }),
      ...more,
    };
    try {
      const dispatcher = AGENTS[this.requests++ % AGENTS.length];
      const response = await fetchFrom(this.shop.url + path, {
        ...(dispatcher && { dispatcher }),
        method,
        headers,
        ...(body !== undefined && { body: JSON.stringify(body) }),
        signal: AbortSignal.timeout(timeout),
      });
      const answer = { status: response.headers.has(BALANCER) ? 0 : response.status, body: await response.text() };
      if (answer.status === 500) this.violations.push(`${method} ${path} was answered 500: ${answer.body}`);
      if (answer.status === 503 && !response.headers.has("retry-after")) this.violations.push(`a 503 without Retry-After: ${answer.body}`);
      this.note(answer.status, Date.now() - since);
      return answer;
    } catch {
      this.note(0, Date.now() - since);
      return { status: 0, body: "" };
    }
  }

  private note(status: number, took: number): void {
    const { window } = this;
    window.slowest = Math.max(window.slowest, took);
    if (status === 0 || status >= 500) {
      window.failures++;
      return;
    }
    const now = Date.now();
    window.silence = Math.max(window.silence, now - this.lastAnswer);
    this.lastAnswer = now;
  }
}
