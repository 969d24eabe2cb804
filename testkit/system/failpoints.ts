import { readFileSync, statSync, writeFileSync } from "node:fs";
import { setTimeout as pause } from "node:timers/promises";
import { ServiceBroker, Transporters } from "moleculer";
import { Client } from "pg";
import { Sequelize } from "sequelize";
import * as ours from "../../broker/amqp.transporter";

/*
 * Loaded into a node before anything else (`--require`), only by the fault runs and the upgrade. The shop's code doesn't know about it. Nodes of an
 * older version load it as well.
 */
if (process.env.NODE_ENV === "production") throw new Error("failpoints are for tests and must not be loaded in production");

export interface Failpoint {
  point: "now" | "before query" | "after query" | "before emit" | "after emit";
  /** a substring of the statement and its values, or of the event's name and payload, as JSON */
  match?: string;
  /** `postpone`: the event is sent later, while its sender believes that it has been sent */
  does: "die" | "throw" | "delay" | "postpone" | "sleep in the database" | "channel error" | "fill the heap";
  ms?: number;
  /** how many times; without it, always */
  times?: number;
}

type Anything = (...args: unknown[]) => unknown;

const { CHAOS_FAILPOINT_FILE: file = "", CHAOS_POOL, CHAOS_WITHOUT_REPUBLISHING, CHAOS_MOLECULER_TRANSPORTER } = process.env;
let armed: Failpoint[] = [];
let seen = 0;
let broker: ServiceBroker | undefined;

/** The file arms and disarms a running node, so a failpoint hits under load and never during the start. */
setInterval(() => {
  const changed = statSync(file, { throwIfNoEntry: false })?.mtimeMs ?? 0;
  if (changed === seen) return;
  seen = changed;
  const text = readFileSync(file, "utf8");
  armed = JSON.parse(text) as Failpoint[];
  for (const { point, does } of armed) {
    if (point !== "now") continue;
    if (does === "channel error") breakChannel();
    if (does === "fill the heap") setImmediate(fillHeap);
  }
  writeFileSync(`${file}.seen`, text);
}, 20).unref();

/** Checks a queue that doesn't exist, upon which RabbitMQ closes the channel. */
function breakChannel(): void {
  const transporter = broker?.transit?.tx as unknown as { channel?: { checkQueue(name: string): Promise<unknown> } | null } | undefined;
  transporter?.channel?.checkQueue("a queue that nobody has made").catch(() => undefined);
}

/** Exhausts the heap, as a leak eventually does. */
function fillHeap(): void {
  for (const kept: object[] = []; ;) kept.push({ n: kept.length });
}

const matches = ({ match = "" }: Failpoint, what: string): boolean => what.includes(match);

function take(point: Failpoint["point"], what: string): Failpoint | undefined {
  const found = armed.find((one) => one.point === point && one.times !== 0 && matches(one, what));
  if (found?.times !== undefined) found.times--;
  return found;
}

async function act({ does, ms = 0, match }: Failpoint): Promise<void> {
  if (does === "die") {
    process.kill(process.pid, "SIGKILL");
    await new Promise(() => undefined);
  }
  if (does === "throw") throw new Error(`failpoint ${match ?? ""}`);
  if (does === "delay") await pause(ms);
}

async function around(kind: "query" | "emit", what: string, call: () => unknown): Promise<unknown> {
  const before = take(`before ${kind}`, what);
  if (before) await act(before);
  const result = await call();
  const after = take(`after ${kind}`, what);
  if (after) await act(after);
  return result;
}

/** A method of a prototype, to be called with `apply`. */
const methodOf = (prototype: object, name: string): Anything => Reflect.get(prototype, name) as Anything;

const query = methodOf(Client.prototype, "query");
Client.prototype.query = function (this: Client, ...args: unknown[]) {
  const call = () => query.apply(this, args);
  const [config] = args as [{ text?: string; values?: unknown } | string | undefined];
  const text = typeof config === "string" ? config : config?.text;
  if (text === undefined || args.some((arg) => typeof arg === "function")) return call();
  // for the control without republishing: suppresses what makes rows due again when listeners come back
  if (CHAOS_WITHOUT_REPUBLISHING && text.trimStart().startsWith("insert into outbox_events (event, due_before)"))
    return Promise.resolve({ rows: [], rowCount: 0 });
  if (armed.length === 0) return call();
  const what = text + JSON.stringify(typeof config === "string" ? args[1] : config?.values);
  const sleep = armed.find((one) => one.does === "sleep in the database" && one.times !== 0 && matches(one, what));
  if (sleep) {
    if (sleep.times !== undefined) sleep.times--;
    void query.call(this, `select pg_sleep(${(sleep.ms ?? 0) / 1000})`);
  }
  return around("query", what, call);
} as typeof Client.prototype.query;

const emit = methodOf(ServiceBroker.prototype, "emit");
ServiceBroker.prototype.emit = function (this: ServiceBroker, ...args: unknown[]) {
  const call = () => emit.apply(this, args);
  if (armed.length === 0) return call();
  const what = JSON.stringify(args.slice(0, 2));
  const late = armed.find((one) => one.does === "postpone" && matches(one, what));
  if (!late) return around("emit", what, call);
  setTimeout(call, late.ms);
  return Promise.resolve();
} as typeof ServiceBroker.prototype.emit;

const remember = (started: ServiceBroker): void => {
  broker = started;
};
const start = methodOf(ServiceBroker.prototype, "start");
ServiceBroker.prototype.start = function (this: ServiceBroker) {
  remember(this);
  return start.call(this);
} as typeof ServiceBroker.prototype.start;

if (CHAOS_POOL) {
  Sequelize.addHook("beforeInit", (_config, options) => {
    options.pool = { ...options.pool, max: Number(CHAOS_POOL) };
  });
}

// for the control with Moleculer's own transporter: replaces a module's export before any other module has read it
if (CHAOS_MOLECULER_TRANSPORTER)
  Object.assign(ours, { amqpTransporter: (...url: string[]) => new Transporters.AMQP({ url, prefetch: 64 }) });
