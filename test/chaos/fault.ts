import { execFileSync } from "node:child_process";
import type { DatabaseName, ServiceName } from "../../config";
import type { Load, OrderRecord } from "../../testkit/load/load";
import type { Cut, Proxy } from "../../testkit/proxy";
import type { Failpoint } from "../../testkit/system/failpoints";
import type { System, Topology } from "../../testkit/system/system";
import { eventually } from "../../testkit/until";

/*
 * The type of a fault, and helpers that faults share.
 */

export interface Chaos {
  readonly system: System;
  readonly load: Load;
  readonly quick: boolean;
  readonly random: () => number;
  /** Records a violation if the condition is false. */
  expect(holds: boolean, what: string): void;
}

/** A part that a fault acts on or relies on. Faults that share one can't run at the same time. */
type Part = "api" | "orders" | "products" | "rabbitmq" | "databases";
/** For faults that need everything else healthy, or have their own `setUp`. */
export const ALL_PARTS: readonly Part[] = ["api", "orders", "products", "rabbitmq", "databases"];

/** The shop and the load that a fault runs against. */
export interface Setup {
  readonly system: System;
  readonly load: Load;
}

export interface SetupPlan {
  readonly common: System;
  readonly random: () => number;
  /** Registers a cleanup. Cleanups run in reverse order, even if the run fails. */
  readonly onStop: (stop: () => Promise<void>) => void;
}

export interface Fault {
  readonly number: number;
  readonly name: string;
  /** services that need more than one node */
  readonly nodes?: Topology;
  /** maximum ms from the end of the fault until everything is settled and a new order is confirmed */
  readonly withinMs?: number;
  /** the parts that it needs in a random run, where it may overlap with faults of other parts; with its own `setUp` it runs alone */
  readonly random?: readonly Part[];
  readonly quick?: true;
  /** @returns why it can't be done here */
  readonly impossible?: () => string | undefined;
  /** Starts a shop with a load for this fault alone, if the common one won't do. */
  readonly setUp?: (plan: SetupPlan) => Promise<Setup>;
  /** Causes the fault and ends it, under load. */
  inject(chaos: Chaos): Promise<void>;
  /** Runs after the load has stopped and everything is settled. */
  after?(chaos: Chaos): Promise<void>;
}

export const TWO_OF_EACH: Topology = { api: 2, users: 2, orders: 2, products: 2 };
export const NEW_ORDER = "insert into orders";
export const die = (point: Failpoint["point"], match: string): Failpoint => ({ point, match, does: "die", times: 1 });

/** Lets a node die at a failpoint under load, then starts another process in its place. */
export const diesAt =
  (service: ServiceName, ...points: Failpoint[]) =>
  async ({ system }: Chaos): Promise<void> => {
    const slot = system.slots.find((one) => one.process === system.node(service));
    await slot?.process?.arm(...points);
    await slot?.process?.exited(40_000);
    if (slot) await system.launch(slot);
  };

/** Waits until an order that is sent from now on is accepted. */
export const untilAccepting = ({ load }: Chaos, ms = 40_000): Promise<void> => {
  const now = Date.now();
  return eventually(
    "orders are accepted",
    () => [...load.orders.values()].slice(-500).some(({ at, status }) => at > now && status === 201),
    ms,
  );
};

/** Maximum time from the end of a database fault until orders are accepted again. */
const BACK_WITHIN_MS = 5_000;

/** Call at the end of a database fault: orders must be accepted again soon. */
export async function expectRecovery(chaos: Chaos, what: string, withinMs = BACK_WITHIN_MS): Promise<void> {
  const since = Date.now();
  await untilAccepting(chaos);
  const took = Date.now() - since;
  chaos.expect(took < withinMs, `no order for ${took} ms after ${what}`);
}

/** Runs a query. @returns the first column of the first row */
export const queryValue = async <T>(
  { system }: Chaos,
  database: DatabaseName,
  text: string,
  ...values: unknown[]
): Promise<T | undefined> => Object.values((await system.sql<Record<string, T>>(database, text, values))[0] ?? {})[0];

export const statusOf = (chaos: Chaos, order: OrderRecord) =>
  queryValue<string>(chaos, "orders", "select status from orders where id = $1", order.id);

export const becomes = (chaos: Chaos, order: OrderRecord, status: string): Promise<void> =>
  eventually(`order ${order.id ?? ""} is ${status}`, async () => (await statusOf(chaos, order)) === status, 40_000);

export const countParked = (chaos: Chaos): Promise<number | undefined> =>
  queryValue<number>(chaos, "orders", "select count(*)::int from outbox where state = 'PARKED'");

/** All of them; in a quick run, a random one. */
export function allOrRandomOne<T>({ quick, random }: Chaos, all: readonly T[]): readonly T[] {
  const n = Math.floor(random() * all.length);
  return quick ? all.slice(n, n + 1) : all;
}

export const anyProduct = ({ load }: Chaos): string => [...load.products.keys()][0] ?? "";

export const orderMany = ({ load }: Chaos, count: number, product: string): Promise<OrderRecord[]> =>
  Promise.all(Array.from({ length: count }, () => load.order([{ product_id: product, quantity: 1 }])));

/** Cuts connections at their next commit: alternately before the server receives it and before the client gets the response. */
export function cutCommits(line: Proxy, sign: string): { cuts: () => number; stop: () => void } {
  let cuts = 0;
  line.cutsAt = (chunk): Cut => (chunk.includes(sign) && chunk.length > 0 ? (++cuts % 2 === 0 ? "request" : "response") : undefined);
  return { cuts: () => cuts, stop: () => (line.cutsAt = () => undefined) };
}

/** The environment of `faketime`. A node isn't started through it, since a signal would end only the wrapper. */
export function clockOffset(offset: string): Record<string, string> | undefined {
  try {
    const env = execFileSync("faketime", ["-m", "--exclude-monotonic", "-f", offset, "env"], { encoding: "utf8" });
    const lines = env.split("\n").filter((line) => /^(LD_PRELOAD|FAKETIME|FAKETIME_DONT_FAKE_MONOTONIC)=/.test(line));
    return Object.fromEntries(lines.map((line): [string, string] => [line.slice(0, line.indexOf("=")), line.slice(line.indexOf("=") + 1)]));
  } catch {
    return undefined; // not installed
  }
}

/** Whether two faults of a random run may overlap. */
export const areCompatible = (one: Fault, other: Fault): boolean =>
  one !== other && !one.setUp && !other.setUp && one.random?.some((part) => other.random?.includes(part)) === false;
