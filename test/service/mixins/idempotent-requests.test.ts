import { randomUUID } from "node:crypto";
import type { Service } from "moleculer";
import { Client as Postgres } from "pg";
import { call } from "../../../broker/contract";
import { digestOfJson } from "../../../contracts/digest";
import { adjust, get } from "../../../contracts/products";
import { until } from "../../../testkit/until";
import type { Client } from "../../../testkit/client";
import { startShop, type Shop } from "../../../testkit/shop";

/*
 * The rows of requests with an Idempotency-Key, with adjustments of the stock as the example.
 */

let shop: Shop, database: Postgres, seller: Client, sellerId: string;
let id: string, key: string;

beforeAll(async () => {
  shop = await startShop({ nodes: [["api", "users", "products"]] });
  seller = shop.client();
  sellerId = await seller.signUp();
  database = new Postgres(shop.databases.products.url);
  await database.connect();
});
afterAll(async () => {
  await database.end();
  await shop.stop();
});
beforeEach(async () => {
  id = await seller.createProduct({ quantity: 5 });
  key = randomUUID();
});

/** Adjusts the stock of the product. */
async function adjustStock(delta: number, by = key) {
  const { status, body, headers } = await seller.post(`/products/${id}/stock`, { delta }, { headers: { "Idempotency-Key": by } });
  return { status, body, replayed: headers.get("idempotent-replayed") };
}

const count = async (sql: string, values: unknown[] = []) => (await database.query(sql, values)).rowCount;
const adjustments = () => count("select from stock_movements where product_id = $1 and kind = 'ADJUSTMENT'", [id]);

it("a response that can't be stored → 500, nothing is changed, and the key may be used again", async () => {
  await database.query("alter table idempotent_requests add constraint no_response check (response is null) not valid");
  try {
    expect((await adjustStock(1)).status).toBe(500);
    expect([await adjustments(), await seller.quantityOf(id)]).toEqual([0, 5]);
  } finally {
    await database.query("alter table idempotent_requests drop constraint no_response");
  }
  expect(await adjustStock(1)).toMatchObject({ status: 200, body: { quantity: 6 }, replayed: null });
});

describe("a key of 24 hours ago", () => {
  const age = () => database.query("update idempotent_requests set created_at = now() - interval '24 hours' where key = $1", [key]);

  it("is free for any request", async () => {
    await adjustStock(1);
    await age();
    expect(await adjustStock(2)).toMatchObject({ status: 200, body: { quantity: 8 }, replayed: null });
    expect(await adjustStock(2)).toMatchObject({ status: 200, body: { quantity: 8 }, replayed: "true" });
    expect(await adjustments()).toBe(2);
  });

  it("is deleted by the sweep, with however many others, and a younger one is not", async () => {
    const younger = randomUUID();
    await adjustStock(1);
    await age();
    await adjustStock(1, younger);
    await database.query(
      `insert into idempotent_requests (user_id, key, request_hash, created_at)
       select $1, 'old ' || n, '-', now() - interval '25 hours' from generate_series(1, 1200) as n`,
      [sellerId],
    );
    await (shop.node("products").getLocalService("products") as Service & { cleanUp(): Promise<void> }).cleanUp();
    const { rows } = await database.query("select key from idempotent_requests where key = any($1) or key like 'old %'", [[key, younger]]);
    expect(rows).toEqual([{ key: younger }]);
  });
});

describe("while another transaction", () => {
  let other: Postgres;
  beforeEach(async () => {
    other = new Postgres(shop.databases.products.url);
    await other.connect();
    await other.query("begin");
  });
  afterEach(() => other.end());

  const REUSED = { status: 422, body: { code: "IDEMPOTENCY_KEY_REUSED" }, replayed: null };

  /** Writes the key and a response, as another node would: the product with its first quantity. */
  const hold = async (delta: number) => {
    const hash = digestOfJson({ params: { delta, id }, action: adjust.name });
    const response = JSON.stringify(await call(shop.node("products"), get, { id }));
    const values = [sellerId, key, hash, response];
    await other.query("insert into idempotent_requests (user_id, key, request_hash, response) values ($1, $2, $3, $4)", values);
  };

  it("holds the key for a second → 409, and after that has failed, the key may be used again", async () => {
    await hold(1);
    const since = performance.now();
    expect(await adjustStock(1)).toMatchObject({ status: 409, body: { code: "IDEMPOTENCY_IN_FLIGHT" } });
    expect(performance.now() - since).toBeGreaterThan(900);
    await other.query("rollback");
    expect(await adjustStock(1)).toMatchObject({ status: 200, replayed: null });
  });

  it.each([
    ["commits the same request → its response", "commit", 1, { status: 200, body: { quantity: 5 }, replayed: "true" }],
    ["commits another request → 422", "commit", 2, REUSED],
    ["fails → the change is made", "rollback", 1, { status: 200, body: { quantity: 6 }, replayed: null }],
  ])("holds the key and then %s", async (_what, end, delta, expected) => {
    await hold(delta);
    const response = adjustStock(1);
    const waiting = "select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
    await until("the repeat waits for the first request", async () => (await count(waiting)) === 1);
    await other.query(end);
    expect(await response).toMatchObject(expected);
    expect(await adjustments()).toBe(end === "rollback" ? 1 : 0);
  });

  it("holds the product → 503 rather than 409, and the key may be used again", async () => {
    await other.query("select id from products where id = $1 for update", [id]);
    expect(await adjustStock(1)).toMatchObject({ status: 503, body: { code: "SERVICE_UNAVAILABLE" } });
    await other.query("rollback");
    expect(await adjustStock(1)).toMatchObject({ status: 200, replayed: null });
  });
});

it("a key on two nodes at once takes effect once, and the gateway on a third node marks the replays", async () => {
  const split = await startShop({ nodes: [["api", "users"], ["products"], ["products"]] });
  try {
    const client = split.client();
    await client.signUp();
    const product = await client.createProduct({ quantity: 5 });
    const headers = { "Idempotency-Key": key };
    const all = await Promise.all(Array.from({ length: 20 }, () => client.post(`/products/${product}/stock`, { delta: 1 }, { headers })));
    for (const { status, body } of all) expect([status, body]).toEqual([200, all[0]!.body]);
    expect(all.filter((one) => one.headers.get("idempotent-replayed") === null)).toHaveLength(1);
    expect(await client.quantityOf(product)).toBe(6);
  } finally {
    await split.stop();
  }
});
