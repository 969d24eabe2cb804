import type { Middleware } from "moleculer";
import { Client as Postgres } from "pg";
import { call } from "../../broker/contract";
import { PAGE_BYTES, RESPONSE_BYTES } from "../../contracts/contract";
import * as orders from "../../contracts/orders";
import * as products from "../../contracts/products";
import type { Database } from "../../mixins/database";
import { batchedCalls } from "../../services/api/batched-calls";
import { findByKeys, findSeen, listOrders } from "../../services/orders/read.store";
import { listProducts } from "../../services/products/products.store";
import type { Client } from "../../testkit/client";
import { testId } from "../../testkit/ids";
import { ADMIN } from "../../testkit/admin";
import { startShop, type Shop } from "../../testkit/shop";

const MAX_TEXT = "語".repeat(5_000);
const LONG_NAME = "語".repeat(200);

let shop: Shop, catalogue: Postgres, book: Postgres, seller: Client, sellerId: string;

/** Bytes of the largest response of each action; a message between nodes adds only a little. */
const largest = new Map<string, number>();
const weighing: Middleware = {
  name: "Weighing",
  localAction: (next, { name }) =>
    async function (ctx) {
      const result: unknown = await next.call(this, ctx);
      const bytes = Buffer.byteLength(JSON.stringify(result ?? null));
      largest.set(String(name), Math.max(largest.get(String(name)) ?? 0, bytes));
      return result;
    },
};

beforeAll(async () => {
  shop = await startShop({ nodes: [["api", "users"], ["products"], ["orders"]], broker: { middlewares: [weighing] } });
  seller = shop.client();
  sellerId = await seller.signUp();
  [catalogue, book] = [new Postgres(shop.databases.products.url), new Postgres(shop.databases.orders.url)];
  await Promise.all([catalogue.connect(), book.connect()]);
});
afterAll(async () => {
  await Promise.all([catalogue.end(), book.end()]);
  await shop.stop();
});
beforeEach(() => {
  largest.clear();
});

/** Reads all pages of a path by their links, and checks that each has at most 256 KiB. */
async function walk(client: Client, start: string): Promise<{ ids: string[]; pages: number[] }> {
  const ids: string[] = [];
  const pages: number[] = [];
  for (let path = start; path !== "";) {
    const response = await fetch(client.url + path, { headers: { Authorization: `Bearer ${client.token ?? ""}` } });
    const text = await response.text();
    expect([response.status, Buffer.byteLength(text) <= PAGE_BYTES]).toEqual([200, true]);
    const items = (JSON.parse(text) as { items: { id: string }[] }).items.map(({ id }) => id);
    ids.push(...items);
    pages.push(items.length);
    path = /^<(.+)>; rel="next"$/.exec(response.headers.get("link") ?? "")?.[1] ?? "";
  }
  return { ids, pages };
}

const insertProducts = async (count: number, name: string, description: string | null, owner: string): Promise<string[]> =>
  (
    await catalogue.query<{ id: string }>(
      `insert into products (name, description, price_cents, quantity, seller_id)
       select $2, $3, 1, 1000000, $4 from generate_series(1, $1) returning id`,
      [count, name, description, owner],
    )
  ).rows.map(({ id }) => id);

/** Inserts orders of a hundred lines with names of maximum length. */
async function insertOrders(count: number, userId: string): Promise<string[]> {
  const { rows } = await book.query<{ id: string }>(
    `with made as (
       insert into orders (user_id, idempotency_key, request_hash, lines_digest, status, total_cents)
       select $2, 'large-' || n, '-', '-', 'CONFIRMED', 100 from generate_series(1, $1) as n returning id
     ), lines as (
       insert into order_lines (order_id, product_id, name, unit_price_cents, quantity) select id, gen_random_uuid(), $3, 1, 1 from made, generate_series(1, 100)
     ), history as (insert into order_history (order_id, status) select id, 'CONFIRMED' from made)
     select id from made order by id`,
    [count, userId, LONG_NAME],
  );
  return rows.map(({ id }) => id);
}

/** Bytes of the rows that a database returns for a list. */
async function readBytes(client: Postgres, list: (db: Database) => Promise<unknown>): Promise<number> {
  let bytes = 0;
  const read = async (text: string, values: unknown[]) => {
    const { rows } = await client.query<object>(text, values);
    bytes += Buffer.byteLength(JSON.stringify(rows));
    return rows;
  };
  await list({ query: read, adhoc: read } as unknown as Database); // lists use nothing else
  return bytes;
}

describe("a page of large items", () => {
  beforeAll(async () => {
    await insertProducts(50, LONG_NAME, MAX_TEXT, testId(1));
    await insertProducts(50, "Lamp", null, testId(1));
  });

  it.each(["created_at", "-name", "price"])(
    "of products by %s ends at 256 KiB, and one of small products at its limit; together they have every item once",
    async (sort) => {
      for (const limit of [20, 100]) {
        const { ids, pages } = await walk(seller, `/products?seller_id=${testId(1)}&sort=${sort}&limit=${limit}`);
        expect([ids.length, new Set(ids).size]).toEqual([100, 100]);
        expect(pages.length).toBeLessThan(10);
        expect(Math.min(...pages.slice(0, -1))).toBeGreaterThan(10); // as full as possible
      }
    },
  );

  it("of a search ends at 256 KiB as well", async () => {
    for (const q of ["語", "語語語"]) {
      const { ids } = await walk(seller, `/products?seller_id=${testId(1)}&limit=100&q=${q}`);
      expect([ids.length, new Set(ids).size]).toEqual([50, 50]);
    }
  });

  it("of orders ends at 256 KiB as well, newest first", async () => {
    const ids = await insertOrders(30, sellerId);
    for (const limit of [20, 100]) expect((await walk(seller, `/orders?limit=${limit}`)).ids).toEqual([...ids].reverse());
    const admin = await shop.client().login(ADMIN.email, ADMIN.password);
    expect((await walk(admin, "/orders?all=true&status=CONFIRMED&limit=100")).ids).toEqual([...ids].reverse());
    await book.query("truncate orders cascade");
  });

  it("is cut in the database, not after reading all rows", async () => {
    await insertOrders(100, testId(2));
    const ids = (await book.query<{ id: string }>("select id from orders")).rows.map(({ id }) => id);
    const wanted = ids.map((id) => ({ id, user_id: testId(2), role: "user" as const }));
    const all = { userId: testId(2), status: undefined, limit: 100, cursor: undefined };
    expect(await readBytes(book, (db) => listOrders(db, all))).toBeLessThan(3 * PAGE_BYTES);
    expect(await readBytes(book, (db) => findSeen(db, wanted))).toBeLessThan(3 * RESPONSE_BYTES);
    expect(await readBytes(catalogue, (db) => listProducts(db, { seller_id: testId(1), limit: 100 }))).toBeLessThan(2 * PAGE_BYTES);
    await book.query("truncate orders cascade");
  });
});

describe("orders that are not returned", () => {
  afterEach(() => book.query("truncate orders cascade"));

  it("because they exceed the first 128 lines of a batch have their lines counted, but not converted to JSON", async () => {
    const ids = await insertOrders(100, testId(6));
    const wanted = [testId(999_999), ...ids].map((id) => ({ id, user_id: testId(6), role: "user" as const }));
    let made = 0;
    const explain = async (text: string, values: unknown[]) => {
      const { rows } = await book.query<{ "QUERY PLAN": object }>(`explain (analyze, format json) ${text}`, values);
      JSON.stringify(rows, (_key, value: unknown) => {
        if (typeof value === "object" && value !== null && "Subplan Name" in value && "Actual Loops" in value)
          made = Math.max(made, Number(value["Actual Loops"]));
        return value;
      });
      return (await book.query<object>(text, values)).rows;
    };
    const found = await findSeen({ query: explain } as unknown as Database, wanted);
    expect(found.map((order) => order?.id)).toEqual([undefined, ...ids.slice(0, 2)]); // of a hundred lines each
    expect(made).toBe(2);
  });

  it("because their key was reused with another body are not read", async () => {
    await insertOrders(1, testId(7));
    const key = { user_id: testId(7), idempotency_key: "large-1" };
    const find = (request_hash: string) => readBytes(book, (db) => findByKeys(db, [{ ...key, request_hash }]));
    expect(await find("-")).toBeGreaterThan(60_000);
    expect(await find("another")).toBeLessThan(1_000);
  });
});

describe("a batch of large items", () => {
  it("of lists: fourteen different ones at once get responses, in messages of at most 2 MiB", async () => {
    await insertProducts(20, LONG_NAME, MAX_TEXT, testId(3));
    const asked = Array.from({ length: 14 }, (_, i) => seller.get(`/products?seller_id=${testId(3)}&limit=${100 - i}`));
    for (const { status, body } of await Promise.all(asked))
      expect([status, (body["items"] as unknown[]).length > 10]).toEqual([200, true]);
    expect(largest.get(products.listMany.name)).toBeLessThanOrEqual(RESPONSE_BYTES + 100);
  });

  it("of orders: each gets a response, in messages of at most 2 MiB; another user's order among them stays hidden", async () => {
    const [mine, theirs] = [await insertOrders(60, sellerId), await insertOrders(4, testId(4))];
    const ids = [...mine, ...theirs];
    const responses = await Promise.all(ids.map((id) => seller.get(`/orders/${id}`)));
    expect(responses.map(({ status, body }) => [status, status === 200 ? String(body["id"]) : undefined])).toEqual([
      ...mine.map((id) => [200, id]),
      ...theirs.map(() => [404, undefined]),
    ]);
    expect(largest.get(orders.getMany.name)).toBeLessThanOrEqual(RESPONSE_BYTES);

    const wanted = Array.from({ length: 128 }, (_, i) => ({
      id: i < 64 ? theirs[i % 4]! : mine[i % 60]!, // hidden orders take no space
      user_id: sellerId,
      role: "user" as const,
    }));
    const found = await call(shop.node("api"), orders.getMany, { orders: wanted });
    expect(found.slice(0, 64).every((order) => order === null)).toBe(true);
    expect(found.length).toBe(64 + 2); // of a hundred lines each
    expect(found.slice(64).map((order) => order?.id)).toEqual(wanted.slice(64, found.length).map(({ id }) => id));
    await book.query("truncate orders cascade");
  });

  it("of new orders: forty of a hundred lines each are created, with quotes and responses of at most 2 MiB", async () => {
    const ids = await insertProducts(4_000, LONG_NAME, null, testId(5));
    const { createOrder } = batchedCalls(shop.node("api")); // over HTTP they would not all arrive at the same moment
    const made = await Promise.all(
      Array.from({ length: 40 }, (_, i) => {
        const items = ids.slice(100 * i, 100 * i + 100).map((product_id) => ({ product_id, quantity: 1 }));
        return createOrder({ items }, { id: sellerId, role: "user" }, { address: "test", user: sellerId, isWanted: () => true });
      }),
    );
    expect(made.map(({ order }) => order.items.length)).toEqual(made.map(() => 100));
    for (const action of [products.quote, orders.createMany]) expect(largest.get(action.name)).toBeLessThanOrEqual(RESPONSE_BYTES);
  });
});
