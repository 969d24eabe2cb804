import { setTimeout as pause } from "node:timers/promises";
import { Agent, request, type Dispatcher } from "undici";
import { PASSWORD, type VictimAccount } from "./accounts";
import type { Samples } from "./verdict";
import { serve } from "./worker";

export interface VictimsJob {
  url: string;
  accounts: readonly VictimAccount[];
  seconds: number;
  /** Ids of the products that victims read and order. */
  products: readonly string[];
  /** Whether the last victim keeps changing their password and logs in with each new one. */
  changesPassword: boolean;
}

export interface VictimsResult {
  samples: Samples;
  /** By kind and outcome. */
  failures: Record<string, number>;
  requests: number;
}

/**
 * Clients have computers of their own. Without priority, this process waited up to 240 ms for a core, which would be measured as the shop's
 * time.
 */
const NICE = -10;
/** Timeout of a victim's request. */
const GIVE_UP_MS = 10_000;
const CONFIRMED_MS = 15_000;
/** Requests per second, per victim. */
const RATES = { read: 3, list: 1, search: 1, order: 1, create: 0.5, login: 1 / 6 };
const PASSWORD_EVERY_MS = 4_000;
/** Each kind of request starts at a random moment within the first two seconds of a window. */
const FIRST_MS = 2_000;
const LOGIN_TRIES = 15;
/** Well before the hundredth later login, which ends the oldest session. */
const RELOGIN_MS = 300_000;

interface Response {
  status: number;
  body: Dispatcher.ResponseData["body"];
}

/** The measurements of all victims in one window. */
class Measurements {
  readonly samples: Record<string, number[]> = {};
  readonly failures: Record<string, number> = {};
  requests = 0;

  /** @param work rejects, or resolves to what went wrong; to undefined if it succeeded */
  async measure(kind: string, work: () => Promise<string | undefined>): Promise<void> {
    this.requests++;
    const since = performance.now();
    const wrong = await work().catch((error: unknown) => (error instanceof Error ? error.message : String(error)));
    if (wrong === undefined) (this.samples[kind] ??= []).push(performance.now() - since);
    else this.failures[`${kind}: ${wrong}`] = (this.failures[`${kind}: ${wrong}`] ?? 0) + 1;
  }
}

/** A legitimate user with their own address. Some requests reuse a connection, others open a new one. */
class Victim {
  private readonly kept: Agent;
  private readonly fresh: Agent;
  private token = "";
  private password = PASSWORD;
  /** Whether a password change had no definite response. */
  private isPasswordUnsure = false;
  private loggedInAt = -Infinity;
  private measurements = new Measurements();
  private products: readonly string[] = [];

  constructor(
    private readonly url: string,
    private readonly account: VictimAccount,
  ) {
    const timeouts = { headersTimeout: GIVE_UP_MS, bodyTimeout: GIVE_UP_MS, connect: { timeout: GIVE_UP_MS } };
    this.kept = new Agent({ localAddress: account.address, ...timeouts });
    this.fresh = new Agent({ localAddress: account.address, pipelining: 0, ...timeouts });
  }

  /** Logs in before the measurement. A token is used for a third of its 15 minutes. */
  async begin(measurements: Measurements, products: readonly string[]): Promise<void> {
    this.products = products;
    for (let tries = 1; performance.now() - this.loggedInAt > RELOGIN_MS; tries++) {
      this.measurements = new Measurements();
      this.token = "";
      await this.login();
      if (this.token !== "") break;
      if (tries === LOGIN_TRIES) break; // requests that need a token will fail and be counted
      await pause(2_000);
    }
    this.measurements = measurements;
  }

  read = (): Promise<void> => this.expect("read", 200, this.fresh, "GET", `/products/${this.pick()}`);
  list = (): Promise<void> => this.expect("list", 200, this.kept, "GET", "/products?category=bench&sort=-created_at");
  search = (): Promise<void> =>
    this.expect("search", 200, this.kept, "GET", `/products?q=kind${String(Math.floor(50 * Math.random())).padStart(2, "0")}`);
  create = (): Promise<void> =>
    this.expect("create", 201, this.kept, "POST", "/products", { name: "Lamp", price: 19.99, quantity: 5, category: "victims" });

  async login(): Promise<void> {
    await this.measurements.measure("login", async () => {
      const { status, body } = await this.send(this.fresh, "POST", "/token", { email: this.account.email, password: this.password });
      const text = await body.text();
      if (status === 401 && this.isPasswordUnsure) this.togglePassword();
      if (status !== 200) return failureOf(status, text);
      this.isPasswordUnsure = false;
      if (this.token === "") {
        this.token = stringOf(text, "access_token");
        this.loggedInAt = performance.now();
      }
      return undefined;
    });
  }

  /** Measures an order, and following it until it is confirmed. */
  async order(): Promise<void> {
    let id = "";
    await this.measurements.measure("order", async () => {
      const { status, body } = await this.send(this.kept, "POST", "/orders", { items: [{ product_id: this.pick(), quantity: 1 }] });
      const text = await body.text();
      if (status !== 201) return failureOf(status, text);
      id = stringOf(text, "id");
      return undefined;
    });
    if (id === "") return;
    await this.measurements.measure("follow", async () => {
      const { status, body } = await this.send(this.fresh, "GET", `/orders/${id}/events`, undefined, AbortSignal.timeout(CONFIRMED_MS));
      if (status !== 200) return failureOf(status, await body.text());
      let events = "";
      for await (const chunk of body) {
        events += String(chunk);
        if (events.includes("CONFIRMED")) return undefined; // leaving the loop closes the connection
      }
      return "the stream ended before the order was confirmed";
    });
  }

  async changePassword(): Promise<void> {
    const change = { current_password: this.password, new_password: otherThan(this.password) };
    this.isPasswordUnsure = true; // until there is a response
    await this.measurements.measure("password", async () => {
      const { status, body } = await this.send(this.fresh, "PUT", "/me/password", change);
      const text = await body.text();
      if (status < 500) this.isPasswordUnsure = false;
      if (status !== 204) return failureOf(status, text);
      this.togglePassword();
      return undefined;
    });
    await this.login();
  }

  private togglePassword(): void {
    this.password = otherThan(this.password);
  }

  private pick(): string {
    return this.products[Math.floor(Math.random() * this.products.length)] ?? "";
  }

  private expect(kind: string, expected: number, agent: Agent, method: "GET" | "POST", path: string, body?: object): Promise<void> {
    return this.measurements.measure(kind, async () => {
      const response = await this.send(agent, method, path, body);
      const text = await response.body.text();
      return response.status === expected ? undefined : failureOf(response.status, text);
    });
  }

  private async send(
    dispatcher: Agent,
    method: "GET" | "POST" | "PUT",
    path: string,
    json?: object,
    signal = AbortSignal.timeout(GIVE_UP_MS),
  ): Promise<Response> {
    const headers: Record<string, string> = {};
    if (json !== undefined) headers["content-type"] = "application/json";
    if (this.token !== "") headers["authorization"] = `Bearer ${this.token}`;
    const body = json === undefined ? null : JSON.stringify(json);
    const response = await request(this.url + path, { dispatcher, method, headers, body, signal });
    return { status: response.statusCode, body: response.body };
  }
}

const otherThan = (password: string): string => (password === PASSWORD ? `another ${PASSWORD}` : PASSWORD);
const stringOf = (text: string, name: string): string => new RegExp(`"${name}":"([^"]*)"`).exec(text)?.[1] ?? "";
const failureOf = (status: number, text: string): string => `${status} ${stringOf(text, "code")}`.trim();

/** Starts work at a steady rate, even if earlier work is unfinished. @returns a function that stops it */
function startPaced(everyMs: number, work: () => Promise<void>, inFlight: Set<Promise<void>>): () => void {
  const begin = (): void => {
    const done = work().finally(() => inFlight.delete(done));
    inFlight.add(done);
  };
  let repeat: NodeJS.Timeout | undefined;
  const first = setTimeout(
    () => {
      begin();
      repeat = setInterval(begin, everyMs);
    },
    Math.random() * Math.min(everyMs, FIRST_MS),
  );
  return () => {
    clearTimeout(first);
    clearInterval(repeat);
  };
}

/** Victims are reused for later jobs, with their tokens, passwords and connections. */
const known = new Map<string, Victim>();

async function use({ url, accounts, seconds, products, changesPassword }: VictimsJob): Promise<VictimsResult> {
  const victims = accounts.map((account) => {
    const key = `${url} ${account.email}`;
    const victim = known.get(key) ?? new Victim(url, account);
    known.set(key, victim);
    return victim;
  });
  const measurements = new Measurements();
  await Promise.all(victims.map((victim) => victim.begin(measurements, products)));
  const inFlight = new Set<Promise<void>>();
  const stops: (() => void)[] = [];
  const last = victims.at(-1);
  for (const victim of victims) {
    if (victim === last) continue;
    for (const kind of ["read", "list", "search", "order", "create", "login"] as const)
      stops.push(startPaced(1_000 / RATES[kind], () => victim[kind](), inFlight));
  }
  if (changesPassword && last !== undefined) stops.push(startPaced(PASSWORD_EVERY_MS, () => last.changePassword(), inFlight));
  await pause(seconds * 1_000);
  for (const stop of stops) stop();
  await Promise.all(inFlight);
  return { samples: measurements.samples, failures: measurements.failures, requests: measurements.requests };
}

serve(use, NICE);
