import { spawn } from "node:child_process";
import { readFileSync, statSync } from "node:fs";
import { accepting, anyProduct, ask, becomes, clockOff, insertOrders, type Chaos, type Fault } from "./fault";
import { Load } from "./load";
import { isAlive, postmasterOf, type System } from "./system";
import { pause, until } from "./wait";

const HOUR = "+3600s";
/** Milliseconds that a relay may need to find that rows are due: a sweep, and what an order needs. */
const SOON_MS = 15_000;

export const RELAY_FAULTS: readonly Fault[] = [
  {
    number: 44,
    name: "the database's clock an hour ahead, and back",
    impossible: () => (clockOff(HOUR) ? undefined : "faketime is not installed"),
    async inject(chaos) {
      const { system } = chaos;
      const products = system.node("products");
      try {
        await restartPostgresAs(system, clockOff(HOUR) ?? {});
        await accepting(chaos);
        await products.arm({ point: "before query", match: "begin", does: "delay", ms: 3_000 });
        await until("rows wait for replies", async () => ((await inFlight(chaos)) ?? 0) >= 5);
      } finally {
        await system.restartPostgres();
        await products.arm();
      }
      await accepting(chaos);
      const left = () => ask<number>(chaos, "orders", `${COUNT} and created_at > now() + interval '30 minutes'`);
      await until("what the clock put off is settled", async () => (await left()) === 0, SOON_MS);
    },
  },
  {
    number: 45,
    name: "10,000 orders pending",
    within: 90_000,
    async inject(chaos) {
      const { system, quick, random, expect } = chaos;
      const [count, seconds] = quick ? [2_000, 20] : [10_000, 90];
      const buyer = new Load(system, random, { clients: 1 }); // who has no other order waiting
      await buyer.setUp();
      const product = anyProduct(chaos);
      const locked = system.sql(
        "products",
        `begin; set local statement_timeout = 0; lock table reservations in access exclusive mode; select pg_sleep(${seconds}); commit`,
      );
      await insertOrders(chaos, count, product, { lines: [{ product_id: product, quantity: 1 }] });
      await pause(10_000);
      const before = await emissions(chaos);
      const since = Date.now();
      await pause((seconds - 14) * 1_000); // before the release, when many are emitted
      const asked = ((await emissions(chaos)) - before) / ((Date.now() - since) / 1_000);
      await locked;
      expect(asked < MOST_A_SECOND, `while nothing replied, ${asked.toFixed(1)} orders a second were emitted`);
      const released = Date.now();
      const fresh = await buyer.order([{ product_id: product, quantity: 1 }]);
      await becomes(chaos, fresh, "CONFIRMED");
      expect(Date.now() - released <= 2_000, `a new order was decided ${Date.now() - released} ms after the release`);
    },
  },
];

const COUNT = "select count(*)::int from outbox where state = 'PENDING'";
const inFlight = (chaos: Chaos): Promise<number | undefined> => ask<number>(chaos, "orders", `${COUNT} and attempts > 0`);

/** A probe and a new order, of large orders and of others, for each of two events; and some leeway. */
const MOST_A_SECOND = 10;
const emissions = async (chaos: Chaos): Promise<number> => Number(await ask(chaos, "orders", "select sum(attempts)::int from outbox"));

/** As System.restartPostgres, with more environment; and so that the latter can take over. */
async function restartPostgresAs(system: System, more: Record<string, string>): Promise<void> {
  const pid = postmasterOf(system.cluster);
  const read = (name: string): string[] => readFileSync(`/proc/${pid}/${name}`, "utf8").split("\0").slice(0, -1);
  const [program = "", ...args] = read("cmdline");
  const env = Object.fromEntries(read("environ").map((line) => [line.slice(0, line.indexOf("=")), line.slice(line.indexOf("=") + 1)]));
  const { uid, gid } = statSync(`/proc/${pid}`);
  process.kill(pid, "SIGQUIT");
  await until("PostgreSQL has ended", () => !isAlive(pid), 20_000);
  const child = spawn(program, args, {
    cwd: system.cluster,
    uid,
    gid,
    env: { ...env, ...more, PG_GRANDPARENT_PID: String(pid) },
    stdio: "ignore",
    detached: true,
  });
  child.unref();
  process.once("exit", () => child.kill("SIGQUIT")); // where the run is broken off meanwhile
  await until("PostgreSQL is back", () => system.sql("orders", "select 1"), 20_000);
  const [clock] = await system.sql<{ ahead: number }>("orders", "select extract(epoch from now() - to_timestamp($1))::float8 as ahead", [
    Date.now() / 1_000,
  ]);
  if ((clock?.ahead ?? 0) < 3_000) throw new Error(`PostgreSQL's clock is ${clock?.ahead ?? 0} s ahead`);
}
