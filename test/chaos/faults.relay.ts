import { rm } from "node:fs/promises";
import path from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { insertOrders } from "../../testkit/load/insert-orders";
import { Load } from "../../testkit/load/load";
import { eventually } from "../../testkit/until";
import {
  ALL_PARTS,
  anyProduct,
  becomes,
  clockOffset,
  queryValue,
  untilAccepting,
  type Chaos,
  type Fault,
  type Setup,
  type SetupPlan,
} from "./fault";
import { startShopOnServer, withOwnSetup } from "./setup";
import { PostgresServer, withoutPostgres } from "./postgres-server";

const HOUR = "+3600s";
/** Milliseconds that the relay may need to notice due rows and settle them. */
const SOON_MS = 15_000;

async function setUpServer(plan: SetupPlan): Promise<[Setup, PostgresServer]> {
  const folder = path.join(plan.common.folder, "fault-44", "server");
  const server = await PostgresServer.create(folder);
  plan.onStop(async () => {
    await server.stop("immediate");
    await rm(folder, { recursive: true, force: true, maxRetries: 5 });
  });
  return [await startShopOnServer(server, plan, "fault-44"), server];
}

async function isAhead(server: PostgresServer): Promise<void> {
  const [clock] = await server.sql<{ s: number }>(`select extract(epoch from now())::float8 - ${Date.now() / 1_000} as s`);
  if ((clock?.s ?? 0) < 3_000) throw new Error(`PostgreSQL's clock is ${clock?.s ?? 0} s ahead`);
}

export const RELAY_FAULTS: readonly Fault[] = [
  {
    number: 44,
    name: "the database's clock an hour ahead, and back",
    random: ALL_PARTS,
    impossible: () => withoutPostgres() ?? (clockOffset(HOUR) ? undefined : "faketime is not installed"),
    ...withOwnSetup(setUpServer, async (chaos, server) => {
      const products = chaos.system.node("products");
      try {
        await server.stop("immediate");
        await server.start(clockOffset(HOUR));
        await isAhead(server);
        await untilAccepting(chaos);
        await products.arm({ point: "before query", match: "begin", does: "delay", ms: 3_000 });
        await eventually("rows are in flight", async () => ((await inFlight(chaos)) ?? 0) >= 5);
      } finally {
        await server.stop("immediate");
        await server.start();
        await products.arm();
      }
      await untilAccepting(chaos);
      const left = () => queryValue<number>(chaos, "orders", `${COUNT} and created_at > now() + interval '30 minutes'`);
      await eventually("rows from the future are settled", async () => (await left()) === 0, SOON_MS);
    }),
  },
  {
    number: 45,
    name: "10,000 orders pending",
    withinMs: 90_000,
    random: ALL_PARTS,
    async inject(chaos) {
      const { system, quick, random, expect } = chaos;
      const [count, seconds] = quick ? [2_000, 20] : [10_000, 90];
      const buyer = new Load(system, random, { clients: 1 }); // a user without other pending orders
      await buyer.setUp();
      const product = anyProduct(chaos);
      const locked = system.sql(
        "products",
        `begin; set local statement_timeout = 0; lock table reservations in access exclusive mode; select pg_sleep(${seconds}); commit`,
      );
      await insertOrders(system, count, product, { lines: [{ product_id: product, quantity: 1 }] });
      await pause(10_000);
      const before = await emissions(chaos);
      const since = Date.now();
      await pause((seconds - 14) * 1_000); // ends before the lock is released, when many rows are published
      const asked = ((await emissions(chaos)) - before) / ((Date.now() - since) / 1_000);
      await locked;
      expect(asked < MAX_A_SECOND, `without a reply, ${asked.toFixed(1)} orders per second were published`);
      const released = Date.now();
      const fresh = await buyer.order([{ product_id: product, quantity: 1 }]);
      await becomes(chaos, fresh, "CONFIRMED");
      expect(Date.now() - released <= 2_000, `a new order was decided ${Date.now() - released} ms after the release`);
    },
  },
];

const COUNT = "select count(*)::int from outbox where state = 'PENDING'";
const inFlight = (chaos: Chaos): Promise<number | undefined> => queryValue<number>(chaos, "orders", `${COUNT} and attempts > 0`);

/** Per second: a probe and a new order, each for small and for large orders, for two events; plus some leeway. */
const MAX_A_SECOND = 10;
const emissions = async (chaos: Chaos): Promise<number> =>
  Number(await queryValue(chaos, "orders", "select sum(attempts)::int from outbox"));
