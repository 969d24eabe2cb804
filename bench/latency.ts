import { randomUUID } from "node:crypto";
import { sql } from "../testkit/sql";
import { quantiles, spread, type Spread } from "../testkit/statistics";
import { untilQuiet } from "./idle";
import type { Generator } from "./load";
import { gets, posts } from "./scenarios";
import { progress } from "./setup";
import type { Target } from "./targets";

export interface Confirmation {
  key: string;
  target: string;
  /** orders requested per second */
  rate: number;
  orders: number;
  unconfirmed: number;
  failures: number;
  p50: Spread;
  p99: Spread;
}

export interface Storm {
  key: string;
  target: string;
  /** p99 of GET /products/:id, ms */
  without: Spread;
  during: Spread;
  /** of the medians */
  ratio: number;
  logins: number;
  /** more logins than can be hashed in time are refused, which is no failure */
  refusedLogins: number;
  failures: number;
}

const CONNECTIONS = 256;

/**
 * Time from the moment an order's request was due until the order is CONFIRMED, in an open loop. The end is the time that the shop writes
 * to order_history, by the same clock, since the database runs on this machine. The commit of that row is not included (about a millisecond).
 */
export async function measureConfirmation(
  generator: Generator,
  target: Target,
  { rate, seconds, rounds }: { rate: number; seconds: number; rounds: number },
): Promise<Confirmation> {
  const { url, ordersDatabase = "" } = target;
  const p50s: number[] = [];
  const p99s: number[] = [];
  let [orders, unconfirmed, failures] = [0, 0, 0];
  for (let round = 0; round < rounds; round++) {
    const result = await generator.open({
      url,
      phases: [{ rate, seconds: seconds + 1 }],
      connections: CONNECTIONS,
      requests: posts(target),
    });
    await untilQuiet(Object.values(target.roles).flat());
    const due = new Map(result.orders);
    const rows = await sql<{ order_id: string; at: number }>(
      ordersDatabase,
      `select order_id, (extract(epoch from at) * 1000)::float8 as at from order_history where status = 'CONFIRMED' and order_id = any($1)`,
      [[...due.keys()]],
    );
    const warm = Math.min(...due.values()) + 1_000;
    const all = rows.flatMap(({ order_id, at }) => {
      const since = due.get(order_id) ?? Infinity;
      return since > warm ? [at - since] : [];
    });
    const [p50 = 0, p99 = 0] = quantiles(all, [0.5, 0.99]);
    p50s.push(p50);
    p99s.push(p99);
    orders += due.size;
    unconfirmed += due.size - rows.length;
    failures += Object.values(result.failures).reduce((a, b) => a + b, 0) + result.seconds.reduce((sum, { unsent }) => sum + unsent, 0);
    progress(`POST→CONFIRMED at ${rate.toFixed(0)}/s  ${target.name}  p50 ${p50.toFixed(1)} ms  p99 ${p99.toFixed(1)} ms`);
  }
  return { key: target.key, target: target.name, rate, orders, unconfirmed, failures, p50: spread(p50s), p99: spread(p99s) };
}

const READERS = 8;
const LOGINS = 8;

/** The effect on readers of eight concurrent logins at the full bcrypt cost. */
export async function measureStorm(generator: Generator, target: Target, seconds: number, rounds: number): Promise<Storm> {
  const credentials = JSON.stringify({ email: `${randomUUID()}@bench.test`, password: "correct horse battery" });
  const headers = { "Content-Type": "application/json" };
  const registered = await fetch(`${target.url}/register`, { method: "POST", headers, body: credentials });
  if (!registered.ok) throw new Error(`no account: ${registered.status} ${await registered.text()}`);
  const calm: number[] = [];
  const stormy: number[] = [];
  let [logins, refusedLogins, failures] = [0, 0, 0];
  for (let round = 0; round < rounds; round++) {
    for (const [p99s, concurrency] of [[calm, 0] as const, [stormy, LOGINS] as const]) {
      const job = { url: target.url, connections: READERS, warmUp: 1, seconds, requests: gets() };
      const result = await generator.closed({ ...job, logins: { concurrency, body: credentials } }, target.roles);
      p99s.push(result.p99);
      logins += result.logins;
      refusedLogins += result.refusedLogins;
      failures += Object.values(result.failures).reduce((a, b) => a + b, 0);
      progress(
        `GET c${READERS} with ${concurrency} logins in flight  ${target.name}  p99 ${result.p99.toFixed(2)} ms  ${result.logins} logins`,
      );
    }
  }
  const [without, during] = [spread(calm), spread(stormy)];
  return { key: target.key, target: target.name, without, during, ratio: during.median / without.median, logins, refusedLogins, failures };
}
