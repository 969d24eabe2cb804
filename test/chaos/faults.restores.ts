import { rm } from "node:fs/promises";
import path from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { asSystem, call } from "../../broker/contract";
import { DATABASES, type DatabaseName } from "../../config";
import { orderCreated } from "../../contracts/orders";
import { rotateKeys } from "../../contracts/users";
import { DATABASE_NAMES } from "../../scripts/node";
import type { OrderRecord } from "../../testkit/load/load";
import { eventually } from "../../testkit/until";
import {
  ALL_PARTS,
  anyProduct,
  becomes,
  orderMany,
  queryValue,
  untilAccepting,
  type Chaos,
  type Fault,
  type Setup,
  type SetupPlan,
} from "./fault";
import { startShopOn, withOwnSetup } from "./setup";
import { withoutPostgres } from "./postgres-server";
import { RestorableServers } from "./restorable-servers";

/*
 * One database is set back to an earlier moment while the others keep their data: by restoring a dump, or by promoting an asynchronous
 * standby that was behind. docs/operations.md, "Standbys, backups and recovery", describes the same steps for operators.
 */

type Way = "dump" | "standby";

/** How long the shop keeps writing after the moment to which a database is set back. */
const LOST_MS = 3_000;
const SESSIONS_END_MS = 2_000;
const NAME = { dump: "restored from a dump", standby: "loses writes: a lagging standby is promoted" };

/** A fault of a shop with its own database servers. With `isFollowed`, the nodes get the URLs of both primary and standby. */
function restoreFault(
  number: number,
  name: string,
  { database, hasStandby = false }: { database: DatabaseName; hasStandby?: boolean },
  inject: (chaos: Chaos, servers: RestorableServers) => Promise<void>,
): Fault {
  const setUp = async (plan: SetupPlan): Promise<[Setup, RestorableServers]> => {
    const folder = path.join(plan.common.folder, `fault-${number}`, "servers");
    const servers = new RestorableServers(folder, database);
    plan.onStop(async () => {
      await servers.stop();
      await rm(folder, { recursive: true, force: true, maxRetries: 5 });
    });
    await servers.start();
    if (hasStandby) await servers.addStandby();
    const env = hasStandby ? { [DATABASES[database]]: servers.urlOfBoth } : {};
    return [await startShopOn(servers, plan, `fault-${number}`, env), servers];
  };
  return { number, name, random: ALL_PARTS, impossible: withoutPostgres, ...withOwnSetup(setUp, inject) };
}

/**
 * Sets the database back to the moment before `meanwhile`. For `standby`, the server has a standby already.
 * @param prepare statements to run in a restored copy before it replaces the database
 */
async function setBack<T>(
  { load }: Chaos,
  servers: RestorableServers,
  way: Way,
  meanwhile: () => Promise<T>,
  prepare: readonly string[] = [],
): Promise<T> {
  const { database } = servers;
  const name = DATABASE_NAMES[database];
  if (way === "standby") {
    await servers.stopReplication();
    const loss = load.losses.open(database);
    const lost = await meanwhile();
    loss.from = (await servers.failOver()).getTime();
    loss.until = Date.now();
    return lost; // the nodes find the new primary without help
  }
  const loss = load.losses.open(database);
  const file = await servers.own.dump(name);
  const lost = await meanwhile();
  const copy = await servers.own.restoreBeside(file, name, `${database}_svc`);
  for (const statement of prepare) await servers.own.sql(statement, copy);
  await servers.own.swap(name, copy);
  loss.until = Date.now();
  return lost;
}

/** Repairs as an admin does, under load, until nothing differs. Cancels what needs a manual decision. @returns those decisions, by order */
async function repair({ load }: Chaos): Promise<Map<string, string>> {
  const decided = new Map<string, string>();
  await eventually(
    "nothing is left to repair",
    async () => {
      const response = await load.asAdmin("POST", "/admin/repair", { apply: true });
      if (response?.status !== 200) throw new Error(`a repair failed: ${response?.status ?? "no response"} ${response?.body ?? ""}`);
      const report = JSON.parse(response.body) as Record<"repairs" | "decisions", { order_id: string; what: string }[]>;
      for (const { order_id, what } of report.decisions) {
        decided.set(order_id, what);
        await load.asAdmin("POST", `/orders/${order_id}/cancel`);
      }
      return report.repairs.length + report.decisions.length === 0;
    },
    60_000,
    500,
  );
  return decided;
}

const confirmed = async (chaos: Chaos, count: number, product: string, client?: number): Promise<OrderRecord[]> => {
  const line = [{ product_id: product, quantity: 1 }];
  const orders = await Promise.all(Array.from({ length: count }, () => chaos.load.order(line, true, client)));
  for (const order of orders) await becomes(chaos, order, "CONFIRMED");
  return orders;
};

const reservationOf = (chaos: Chaos, { id }: OrderRecord) =>
  queryValue<string>(chaos, "products", "select state from reservations where order_id = $1", id);

/** Cancels orders, and waits until their stock is released. */
async function cancelled(chaos: Chaos, orders: readonly OrderRecord[]): Promise<void> {
  await Promise.all(orders.map((order) => chaos.load.cancel(order)));
  for (const order of orders) await eventually("its stock is released", async () => (await reservationOf(chaos, order)) === "RELEASED");
}

const exists = async ({ load }: Chaos, url: string): Promise<boolean> => (await load.asAdmin("GET", url))?.status === 200;

/** Orders are lost, and others lose their outcome. */
async function setBackOrders(chaos: Chaos, servers: RestorableServers, way: Way): Promise<void> {
  const { system, load, expect } = chaos;
  const few = await load.createProduct(5);
  // PENDING in the backup; afterwards confirmed, cancelled and their stock released
  const node = system.node("orders");
  await node.arm({ point: "before emit", match: orderCreated.name, does: "postpone", ms: 4_000 });
  const overtaken = await orderMany(chaos, 3, anyProduct(chaos));
  const lost = await setBack(chaos, servers, way, async () => {
    await node.arm();
    for (const order of overtaken) await becomes(chaos, order, "CONFIRMED");
    await cancelled(chaos, overtaken);
    const orders = await confirmed(chaos, 5, few, 0);
    await pause(LOST_MS);
    return orders;
  });
  await untilAccepting(chaos);

  for (const { id } of lost) expect(!(await exists(chaos, `/orders/${id ?? ""}`)), `order ${id ?? ""} exists, although its row is lost`);
  const tooEarly = await load.order([{ product_id: few, quantity: 1 }], true, 1);
  expect(tooEarly.status === 409, `stock held by lost orders was sold to another user: ${tooEarly.status ?? "no response"}`);
  await confirmed(chaos, 3, anyProduct(chaos));

  const decided = await repair(chaos);
  for (const { id = "" } of overtaken)
    expect(
      decided.get(id) === "PENDING, its reservation RELEASED",
      `order ${id}, whose stock was released, is not listed for a manual decision`,
    );
  const cancels = new Set([...load.orders.values()].filter(({ cancel }) => cancel !== undefined).map(({ id }) => id));
  for (const [id, what] of decided)
    expect(cancels.has(id), `order ${id}, which was never cancelled, is listed for a manual decision: ${what}`);
  for (const order of lost) expect((await reservationOf(chaos, order)) === "RELEASED", `lost order ${order.id ?? ""} holds stock`);
  await confirmed(chaos, 5, few, 1); // now it can be sold
}

/** Reservations, releases, adjustments and products are lost. */
async function setBackProducts(chaos: Chaos, servers: RestorableServers, way: Way): Promise<void> {
  const { load, expect } = chaos;
  const few = await load.createProduct(5);
  const early = await confirmed(chaos, 3, anyProduct(chaos));
  const { sold, newcomer, ofNewcomer } = await setBack(chaos, servers, way, async () => {
    await cancelled(chaos, early);
    const product = await load.createProduct(10);
    const orders = { sold: await confirmed(chaos, 5, few, 0), newcomer: product, ofNewcomer: await confirmed(chaos, 2, product) };
    await pause(LOST_MS);
    return orders;
  });
  load.products.delete(newcomer);
  await untilAccepting(chaos);
  expect((await load.request("GET", `/products/${newcomer}`)).status === 404, "a lost product exists");
  await confirmed(chaos, 3, few, 1); // sells the same units again, since the first sale is lost

  const decided = await repair(chaos);
  for (const [id, what] of decided)
    expect(
      what === "CONFIRMED, its reservation REJECTED",
      `order ${id} is listed for a manual decision, although its stock is available: ${what}`,
    );
  expect(
    sold.filter(({ id = "" }) => decided.has(id)).length === 3,
    "of five orders for a product with two units left, not exactly three are listed",
  );
  for (const { id = "" } of ofNewcomer) expect(decided.has(id), `order ${id} of a lost product is not listed`);
  for (const order of early) expect((await reservationOf(chaos, order)) === "RELEASED", `cancelled order ${order.id ?? ""} holds stock`);
}

/** Accounts and sessions are lost, and ended sessions come back. */
async function setBackUsers(chaos: Chaos, servers: RestorableServers): Promise<void> {
  const { system, load, expect } = chaos;
  const as = async (
    token: string,
    method: string,
    url: string,
    body?: unknown,
  ): Promise<{ status: number; body: Record<string, unknown> }> => {
    const { status, body: text } = await load.request(method, url, body, token);
    return { status, body: text.startsWith("{") ? (JSON.parse(text) as Record<string, unknown>) : {} };
  };
  const idOf = async (token: string): Promise<string> => String((await as(token, "GET", "/me")).body["id"]);
  const early = await load.tokensOf(await load.register());
  const promoted = await load.register();
  const lost = await setBack(
    chaos,
    servers,
    "dump",
    async () => {
      const person = await load.register();
      const tokens = await load.tokensOf(person);
      const token = tokens.access_token;
      const order = await as(token, "POST", "/orders", { items: [{ product_id: anyProduct(chaos), quantity: 1 }] });
      const product = await as(token, "POST", "/products", { name: "Chair", price: 5, quantity: 3 });
      const account = await idOf((await load.tokensOf(promoted)).access_token);
      await load.asAdmin("PATCH", `/admin/users/${account}`, { role: "admin" });
      load.sessionsMayEnd = true;
      await pause(LOST_MS);
      return { ...person, id: await idOf(token), order: String(order.body["id"]), product: String(product.body["id"]), tokens };
    },
    ["update sessions set ended_at = clock_timestamp() where ended_at is null"],
  );

  // No old session may continue, whether it was lost or ended.
  const since = Date.now();
  const reads = (token: string) => as(token, "GET", `/orders/${lost.order}`);
  for (const [whose, { access_token }] of [
    ["a lost", lost.tokens],
    ["an older", early],
  ] as const) {
    await eventually(`${whose} session is refused`, async () => (await reads(access_token)).status === 401, 10_000, 20);
    const took = Date.now() - since;
    expect(took <= SESSIONS_END_MS, `${whose} session was refused ${took} ms after the restore`);
  }
  await system.asNode((broker) => call(broker, rotateKeys, { at_once: true }, asSystem()), ["users"]);
  await untilAccepting(chaos);
  for (const { access_token, refresh_token } of [lost.tokens, early]) {
    expect((await reads(access_token)).status === 401, "an old access token is accepted again");
    const renewed = await load.request("POST", "/token/refresh", { refresh_token });
    expect(renewed.status === 401, `the response to an old refresh token was ${renewed.status}`);
  }

  // A new account with the same e-mail address is another user.
  const { access_token: token } = await load.tokensOf(await load.register(lost.email));
  expect((await idOf(token)) !== lost.id, "a new user has the id of a lost one");
  expect((await reads(token)).status === 404, "a new user can read an order of a lost one");
  expect((await as(token, "POST", `/orders/${lost.order}/cancel`)).status === 404, "a new user can cancel an order of a lost one");
  const { items } = (await as(token, "GET", "/orders")).body;
  expect(Array.isArray(items) && items.length === 0, "a new user has the orders of a lost one");
  const changed = await as(token, "PATCH", `/products/${lost.product}`, { price: 1 });
  expect(changed.status === 403, `a new user can change a product of a lost one: ${changed.status}`);
  expect(await exists(chaos, `/orders/${lost.order}`), "an admin can't see the order of a lost user");

  const { access_token: fallen } = await load.tokensOf(promoted);
  const isRefused = async (): Promise<boolean> => (await as(fallen, "GET", "/admin/outbox")).status === 403;
  await eventually("a user made admin after the backup no longer is one", isRefused, SESSIONS_END_MS);
}

export const RESTORE_FAULTS: readonly Fault[] = [
  restoreFault(31, `order_db ${NAME.dump}`, { database: "orders" }, (chaos, servers) => setBackOrders(chaos, servers, "dump")),
  restoreFault(32, `order_db ${NAME.standby}`, { database: "orders", hasStandby: true }, (chaos, servers) =>
    setBackOrders(chaos, servers, "standby"),
  ),
  restoreFault(33, "product_db loses writes, both ways", { database: "products", hasStandby: true }, async (chaos, servers) => {
    await setBackProducts(chaos, servers, "standby");
    await setBackProducts(chaos, servers, "dump");
  }),
  restoreFault(34, `user_db ${NAME.dump}`, { database: "users" }, setBackUsers),
];
