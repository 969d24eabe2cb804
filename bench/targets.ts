import { createPublicKey, randomBytes } from "node:crypto";
import path from "node:path";
import { migrate } from "../mixins/migrations";
import { readIfThere } from "../scripts/postgres-binaries";
import { generateSigningKey, signingKey } from "../services/users/tokens";
import { deleteLeftovers } from "../testkit/amqp";
import { freePorts } from "../testkit/free-ports";
import { testId } from "../testkit/ids";
import type { Roles } from "../testkit/process-stats";
import { isOk, startProgram, type RunningProgram } from "../testkit/program";
import { ROOT } from "../testkit/repository";
import { seedProducts } from "../testkit/seed-products";
import { sql } from "../testkit/sql";
import { eventually } from "../testkit/until";
import { startPeer } from "./peer/start";
import { seedStock } from "./seed-stock";
import type { Setup } from "./setup";
import { startShop, tokensOf, type Shop } from "./shop";

/** A running target. */
export interface Target {
  key: string;
  name: string;
  url: string;
  roles: Roles;
  /** A token for each of USER_IDS. */
  tokens: string[];
  ordersDatabase?: string;
  shop?: Shop;
}

/** A target that can be started and measured. */
export interface TargetKind {
  key: string;
  name: string;
  /** The scenarios that it supports; by default all. */
  only?: readonly string[];
  /** The numbers of connections to measure with; by default all. */
  connections?: readonly number[];
  /** Why it can't be measured here; undefined if it can. */
  missing?: (setup: Setup) => string | undefined;
  start: (setup: Setup) => Promise<Omit<Target, "key" | "name">>;
}

const pidsOf = (started: readonly RunningProgram[]): Roles => Object.fromEntries(started.map(({ name, pid }) => [name, [pid]]));

async function startRaw(setup: Setup): Promise<Omit<Target, "key" | "name">> {
  const database = setup.postgres.url("raw_products");
  await migrate({ url: database, directory: path.join(ROOT, "services/products/migrations") });
  await seedProducts(database);
  return startOne(setup, { name: "raw", path: `/products/${testId(1)}`, env: { DATABASE_URL: database } });
}

const startEmpty = (setup: Setup) => startOne(setup, { name: "empty", path: "/", env: {} });

/** Starts a target that is one process, from the file with its name. */
async function startOne(setup: Setup, { name, path, env }: { name: string; path: string; env: Record<string, string> }) {
  const [port = 0] = await freePorts(1);
  const url = `http://127.0.0.1:${port}`;
  const args = [`bench/${name}.js`];
  const one = await startProgram({
    name,
    cwd: setup.build,
    logs: setup.logs,
    args,
    env: { PORT: String(port), ...env },
    ready: () => isOk(url + path),
  });
  setup.onStop(() => one.stop());
  return { url, roles: { [name]: [one.pid] }, tokens: [] };
}

async function startFastify(setup: Setup): Promise<Omit<Target, "key" | "name">> {
  for (const name of ["peer_products", "peer_orders"]) await sql(setup.postgres.url("postgres"), `create database ${name}`); // a constant: names can't be parameters
  const { kid, pem } = await generateSigningKey();
  const signer = signingKey(kid, pem);
  const products = setup.postgres.url("peer_products");
  const log = path.join(setup.logs, "peer.log");
  const peer = await startPeer({
    productsDatabaseUrl: products,
    ordersDatabaseUrl: setup.postgres.url("peer_orders"),
    amqpUrl: setup.amqp,
    publicKeyPem: createPublicKey(pem).export({ type: "spki", format: "pem" }).toString(),
    log,
  }).catch((cause: unknown) => {
    throw new Error(`the peer could not be started; it wrote:\n${readIfThere(log).slice(-3_000)}`, { cause });
  });
  setup.onStop(() => peer.stop());
  await seedProducts(products);
  const roles = Object.fromEntries(Object.entries(peer.pids).map(([name, pid]) => [name, [pid]]));
  return { url: peer.url, roles, tokens: tokensOf(signer), ordersDatabase: setup.postgres.url("peer_orders") };
}

async function startStock(setup: Setup): Promise<Omit<Target, "key" | "name">> {
  const namespace = `bench-stock-${randomBytes(3).toString("hex")}`;
  for (const name of ["stock_products", "stock_orders"]) await sql(setup.postgres.url("postgres"), `create database ${name}`);
  const [port = 0] = await freePorts(1);
  const url = `http://127.0.0.1:${port}`;
  const launch = async (service: string, database: string | undefined, ready: () => Promise<boolean>): Promise<RunningProgram> => {
    const node = await startProgram({
      name: `stock-${service}`,
      cwd: setup.build,
      logs: setup.logs,
      args: ["bench/stock.js"],
      env: {
        SERVICE: service,
        NAMESPACE: namespace,
        NODE_ID: service,
        TRANSPORTER: setup.amqp,
        PORT: String(port),
        ...(database !== undefined && { DATABASE_URL: database }),
      },
      ready,
    });
    setup.onStop(() => node.stop());
    return node;
  };
  const hasTable = (database: string, table: string) => async (): Promise<boolean> =>
    (await sql<{ there: boolean }>(database, "select to_regclass($1) is not null as there", [table]))[0]?.there === true;
  const products = setup.postgres.url("stock_products");
  const orders = setup.postgres.url("stock_orders");
  setup.onStop(() => deleteLeftovers(setup.amqp, namespace, ["api", "products", "orders"]));
  const nodes = await Promise.all([
    launch("products", products, hasTable(products, "products")),
    launch("orders", orders, hasTable(orders, "orders")),
    launch("api", undefined, () => isListening(url)),
  ]);
  await seedStock(products);
  const body = JSON.stringify({ items: [{ product_id: testId(1), quantity: 1 }] });
  const order = async (): Promise<boolean> =>
    (await fetch(`${url}/orders`, { method: "POST", headers: { "Content-Type": "application/json" }, body })).ok;
  await eventually("stock responds", async () => (await isOk(`${url}/products/${testId(1)}`)) && (await order()), 30_000);
  return { url, roles: pidsOf(nodes), tokens: [] };
}

async function isListening(url: string): Promise<boolean> {
  await fetch(url, { signal: AbortSignal.timeout(1_000) });
  return true;
}

type Topology = NonNullable<Parameters<typeof startShop>[1]["topology"]>;

/** A shop as a target. */
export const targetOf = (started: Shop): Omit<Target, "key" | "name"> => ({
  url: started.url,
  roles: pidsOf(started.nodes),
  tokens: started.tokens,
  ordersDatabase: started.databases.orders,
  shop: started,
});

const shop = (key: string, topology: Topology | undefined, preload?: string) => async (setup: Setup) =>
  targetOf(await startShop(setup, { key, topology, preload }));

export const ONE_EACH: Topology = { api: 1, users: 1, products: 1, orders: 1 };
const TWO: Topology = { api: 1, users: 1, products: 2, orders: 2 };
const UNBATCHED = "./bench/unbatched.js";
const ONLY_ONE = [1];
const noBatching = ({ batches }: Setup) => (batches ? undefined : "this tree has no mixins/batching.ts");

export const TARGETS: readonly TargetKind[] = [
  { key: "empty", name: "node:http alone", only: ["get"], start: startEmpty },
  { key: "raw", name: "raw", only: ["get"], start: startRaw },
  { key: "peer", name: "peer (Fastify)", start: startFastify },
  { key: "stock", name: "stock Moleculer", only: ["get", "post"], start: startStock },
  { key: "shop", name: "shop 1+1+1+1", start: shop("shop", ONE_EACH) },
  { key: "shop2", name: "shop 1+1+2+2", start: shop("shop2", TWO) },
  { key: "one", name: "shop, one process", start: shop("one", undefined) },
  {
    key: "unbatched",
    name: "unbatched 1+1+1+1",
    only: ["get", "post"],
    connections: ONLY_ONE,
    missing: noBatching,
    start: shop("unbatched", ONE_EACH, UNBATCHED),
  },
  {
    key: "unbatched1",
    name: "unbatched, one process",
    only: ["get", "post"],
    connections: ONLY_ONE,
    missing: noBatching,
    start: shop("unbatched1", undefined, UNBATCHED),
  },
];
