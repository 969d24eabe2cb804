import type { Context, Middleware } from "moleculer";
import { Client } from "pg";

type Deliver = () => Promise<void>;

/** Events between the nodes of a shop: a scenario can hold or lose them; the others pass. */
export class EventInterceptor {
  private readonly held = new Map<string, Deliver[]>();
  private readonly losing = new Set<string>();
  private readonly counts = new Map<string, number>();

  readonly middleware: Middleware = {
    name: "EventInterceptor",
    localEvent: (next, event) => {
      const name = String(event.name);
      const handle = next as (ctx: Context) => Promise<void>;
      return (ctx: Context) => this.intercept(name, () => handle(ctx));
    },
  };

  private async intercept(name: string, deliver: Deliver): Promise<void> {
    const held = this.held.get(name);
    if (held !== undefined) held.push(deliver);
    else if (!this.losing.has(name)) await deliver();
    this.counts.set(name, (this.counts.get(name) ?? 0) + 1);
  }

  /** How many events of this name were held, lost or handled. */
  count(name: string): number {
    return this.counts.get(name) ?? 0;
  }

  /** Holds events of this name until `release`. */
  hold(name: string): void {
    this.held.set(name, []);
  }

  /** Delivers the held events one after the other, in their original order. */
  async release(name: string): Promise<void> {
    const held = this.held.get(name) ?? [];
    this.held.delete(name);
    for (const deliver of held) await deliver();
  }

  lose(name: string): void {
    this.losing.add(name);
  }

  /** Stops losing events, and delivers the held ones. */
  async clear(): Promise<void> {
    this.losing.clear();
    for (const name of [...this.held.keys()]) await this.release(name);
  }
}

/** How long a statement waits if the scenario has failed. */
const PATIENCE_MS = 10_000;

type Anything = (...args: unknown[]) => unknown;

/** Delays statements of this process before they are sent, to make a race deterministic. */
export class Gate {
  private waiting: (() => void)[] = [];
  private isOpen = false;
  /** How many statements have been delayed. */
  arrivals = 0;
  private readonly query = Client.prototype.query as Anything;

  /** @param texts statements that contain one of these are delayed */
  constructor(private readonly texts: readonly string[]) {
    const { query } = this;
    const pass = (text: string | undefined): Promise<void> | undefined => this.pass(text);
    Client.prototype.query = function (this: Client, ...args: unknown[]) {
      const [config] = args as [{ text?: string } | string | undefined];
      const waits = pass(typeof config === "string" ? config : config?.text);
      return waits === undefined ? query.apply(this, args) : waits.then(() => query.apply(this, args));
    } as typeof Client.prototype.query;
  }

  private pass(text: string | undefined): Promise<void> | undefined {
    if (this.isOpen || text === undefined || !this.texts.some((one) => text.includes(one))) return undefined;
    this.arrivals++;
    return new Promise((go) => {
      this.waiting.push(go);
      setTimeout(go, PATIENCE_MS).unref();
    });
  }

  /** Sends the delayed statements and delays no more. */
  open(): void {
    this.isOpen = true;
    for (const go of this.waiting) go();
    Client.prototype.query = this.query as typeof Client.prototype.query;
  }
}
