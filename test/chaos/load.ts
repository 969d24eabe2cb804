import { randomUUID } from "node:crypto";
import { Recorder } from "../history/recorder";
import { Losses } from "./losses";
import { Readers } from "./readers";
import {
  CLIENT_TIMEOUT_MS,
  Window,
  type Adjustment,
  type Answer,
  type Credentials,
  type Line,
  type LoadOptions,
  type OrderRecord,
} from "./records";
import { Sender } from "./sender";
import { ADMIN, type Shop } from "./system";
import { messageOf, pause, until } from "./wait";

export type { OrderRecord } from "./records";

const MOST_UNDER_WAY = 48;
/** Of failed requests so many are described. */
const MOST_FAILED = 20;
export const PLENTY = 100_000;
const SCARCE = 40;

/** Clients of the public API that order, cancel, adjust, and repeat what was not answered. */
export class Load {
  readonly orders = new Map<string, OrderRecord>();
  readonly adjustments: Adjustment[] = [];
  /** product → quantity at its creation */
  readonly products = new Map<string, number>();
  readonly violations: string[] = [];
  readonly losses = new Losses();
  /** What all of its clients saw. */
  readonly history = new Recorder();
  /** Units of each product that orders of nobody here hold, as far as the history knows of them. */
  readonly strangers = new Map<string, number>();
  /** Whoever gets a 401 logs in again, and goes on. */
  sessionsMayEnd = false;
  window = new Window();
  private readonly people: Credentials[] = [];
  /** Of each client. */
  tokens: string[] = [];
  /** Products that nobody orders: their prices change. */
  readonly exhibits: string[] = [];
  private admin = "";
  private loggingIn: Promise<void> | undefined;
  private plenty: string[] = [];
  private scarce: string[] = [];
  private timer: NodeJS.Timeout | undefined;
  private readonly underWay = new Set<Promise<unknown>>();
  private lastAnswer = 0;
  private readonly sender: Sender;
  readonly readers: Readers;
  private readonly clients: number;
  private readonly giveUpMs: number;
  private readonly withCancels: boolean;

  constructor(
    private readonly shop: Shop,
    private readonly random: () => number,
    { clients = 4, giveUpMs = 120_000, withCancels = true }: LoadOptions = {},
  ) {
    this.clients = clients;
    this.giveUpMs = giveUpMs;
    this.withCancels = withCancels;
    this.sender = new Sender(shop, this.history, this.violations);
    this.readers = new Readers(this, this.sender, random);
  }

  async setUp(): Promise<void> {
    await until("the whole shop answers", async () => (await fetch(`${this.shop.url}/health`)).ok, 30_000);
    for (let n = 0; n < this.clients; n++) this.people.push(await this.register());
    await this.logIn();
    for (let n = 0; n < 5; n++) this.plenty.push(await this.createProduct(PLENTY));
    for (let n = 0; n < 3; n++) this.scarce.push(await this.createProduct(SCARCE));
    for (let n = 0; n < 2; n++) this.exhibits.push(await this.createProduct(SCARCE));
  }

  /** A new account. */
  async register(email = `${randomUUID()}@shop.test`): Promise<Credentials> {
    const credentials = { email, password: "correct horse battery" };
    await this.patiently(() => this.request("POST", "/register", credentials));
    return credentials;
  }

  async tokensOf(credentials: Credentials): Promise<{ access_token: string; refresh_token: string }> {
    const answer = await this.patiently(() => this.request("POST", "/token", credentials));
    if (answer?.status !== 200) throw new Error(`no login: ${answer?.status ?? "no answer"} ${answer?.body ?? ""}`);
    return JSON.parse(answer.body) as { access_token: string; refresh_token: string };
  }

  /** Everybody logs in, once however many ask for it. */
  private logIn(): Promise<void> {
    const all = async (): Promise<void> => {
      const granted: string[] = [];
      for (const person of [...this.people, ADMIN]) granted.push((await this.tokensOf(person)).access_token);
      this.admin = granted.pop() ?? "";
      this.tokens = granted;
    };
    return (this.loggingIn ??= all().finally(() => (this.loggingIn = undefined)));
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

  /** @param rate requests a second; readers make some more, which count for no figure of the window */
  start(rate: number): void {
    this.openWindow();
    this.readers.start(rate);
    this.timer = setInterval(() => {
      if (this.underWay.size < MOST_UNDER_WAY) this.begin(this.something());
    }, 1000 / rate);
  }

  /** No new requests; waits until each that is under way has its answer or is given up. */
  async stop(): Promise<void> {
    clearInterval(this.timer);
    this.timer = undefined;
    await this.readers.stop();
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
    if (dice < 0.12 && this.withCancels && known !== undefined && known.cancel === undefined) return this.cancel(known);
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
  async order(items: Line[], spared = true, client = Math.floor(this.random() * this.clients)): Promise<OrderRecord> {
    const record: OrderRecord = { key: randomUUID(), client, items, attempts: 0, at: Date.now(), spared };
    this.orders.set(record.key, record);
    const answer = await this.insist(() => {
      record.attempts++;
      return this.post(record);
    });
    if (answer !== undefined) this.noteOrder(record, answer);
    return record;
  }

  private noteOrder(record: OrderRecord, answer: Answer): void {
    Object.assign(record, answer);
    if (answer.status === 201) {
      this.window.accepted++;
      record.id = (JSON.parse(answer.body) as { id: string }).id;
      this.readers.wrote(record);
    } else if (answer.status !== 409) this.violations.push(`an order was answered ${answer.status}: ${answer.body}`);
  }

  /** Sends an answered order again: the answer must be the same to the letter. One that is lost is a new one. */
  async repeat(record: OrderRecord): Promise<void> {
    this.window.repeats++;
    const { status, body, id } = record;
    const answer = await this.insist(() => this.post(record));
    if (answer === undefined || (answer.status === status && answer.body === body) || record.id !== id) return;
    if (this.losses.mayHave("orders", record)) {
      this.losses.counts.orders++;
      delete record.cancel;
      this.noteOrder(record, answer);
    } else this.violations.push(`key ${record.key} was answered ${status ?? ""} ${body ?? ""}, then ${answer.status} ${answer.body}`);
  }

  async cancel(record: OrderRecord): Promise<void> {
    record.cancel = { status: 0 };
    const answer = await this.insist(() =>
      this.request("POST", `/orders/${record.id ?? ""}/cancel`, undefined, this.tokens[record.client]),
    );
    if (answer === undefined) return;
    record.cancel = answer;
    this.readers.wrote(record);
    const isLost = answer.status === 404 && this.losses.mayHave("orders", record);
    if (answer.status !== 200 && answer.status !== 409 && !isLost)
      this.violations.push(`a cancel was answered ${answer.status}: ${answer.body}`);
  }

  /** Has no key, so it is never repeated: without an answer it may have been applied. */
  async adjust(product_id: string, delta: number, reason = `chaos ${randomUUID()}`): Promise<void> {
    const adjustment: Adjustment = { reason, product_id, delta };
    this.adjustments.push(adjustment);
    const answer = await this.request("POST", `/products/${product_id}/stock`, { delta, reason }, this.tokens[0]);
    const { sent, answered, status } = answer;
    if (status > 0 && status < 500) Object.assign(adjustment, { sent, answered, status });
    this.readers.wrote(product_id);
  }

  /** As the admin, until there is a definite answer. */
  asAdmin(method: string, path: string, body?: unknown): Promise<Answer | undefined> {
    return this.insist(() => this.request(method, path, body, this.admin, Math.min(60_000, this.giveUpMs)));
  }

  private post({ key, client, items }: OrderRecord): Promise<Answer> {
    return this.request("POST", "/orders", { items }, this.tokens[client], CLIENT_TIMEOUT_MS, { "idempotency-key": key });
  }

  /** As who they are, who logs in again where that is called for. */
  private insist(attempt: () => Promise<Answer>): Promise<Answer | undefined> {
    return this.patiently(async () => {
      const answer = await attempt();
      if (answer.status !== 401 || !this.sessionsMayEnd) return answer;
      await this.logIn();
      return { ...answer, status: 0 }; // as who they are now, in a moment
    });
  }

  /** Repeats after a 5xx, a time-out or a broken connection, and where the first attempt is still under way. */
  private async patiently(attempt: () => Promise<Answer>): Promise<Answer | undefined> {
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
  async request(
    method: string,
    path: string,
    body?: unknown,
    token?: string,
    timeout = CLIENT_TIMEOUT_MS,
    headers: Record<string, string> = {},
  ): Promise<Answer> {
    const answer = await this.sender.send({ method, path, body, token, headers }, timeout);
    // an audit or a repair may take longer
    if (timeout <= CLIENT_TIMEOUT_MS || answer.status === 0) this.note(answer, `${method} ${path}`);
    return answer;
  }

  private note({ status, body, sent, answered }: Answer, what: string): void {
    const { window } = this;
    window.slowest = Math.max(window.slowest, answered - sent);
    if (status === 0 || status >= 500) {
      window.failures++;
      if (window.failed.length < MOST_FAILED) window.failed.push(`${what}: ${status || "no answer"} ${body}`);
      return;
    }
    const now = Date.now();
    window.silence = Math.max(window.silence, now - this.lastAnswer);
    this.lastAnswer = now;
  }
}
