import { randomUUID } from "node:crypto";
import type { Middleware, ServiceBroker } from "moleculer";
import { Client as Postgres } from "pg";
import { call } from "../../broker/contract";
import type { Params, Result } from "../../contracts/contract";
import * as orders from "../../contracts/orders";
import * as products from "../../contracts/products";
import { until } from "../../testkit/until";
import type { Client } from "../../testkit/client";
import { testId } from "../../testkit/ids";
import { startShop, type Shop } from "../../testkit/shop";

let shop: Shop, broker: ServiceBroker, database: Postgres, seller: Client;
let lastUser = 0;
const somebody = (): string => testId(++lastUser);
/** The id of a product or order that doesn't exist. */
const UNKNOWN = testId(999_999);

type Made = Result<typeof orders.createMany>[number];
const codes = (made: Made[]) => made.map((one) => ("error" in one ? one.error.code : one.replayed ? "replayed" : "new"));
const orderRequest = (product_id: string, more: { user_id?: string; key?: string; quantity?: number } = {}) => ({
  user_id: more.user_id ?? somebody(),
  items: [{ product_id, quantity: more.quantity ?? 1 }],
  idempotency_key: more.key ?? randomUUID(),
});
const createMany = (orderRequests: ReturnType<typeof orderRequest>[]) => call(broker, orders.createMany, { orders: orderRequests });
const idsOf = (made: Made[]) => made.map((one) => ("order" in one ? one.order.id : undefined));

/** The lists requested from products. */
const lists: unknown[] = [];
const counting: Middleware = {
  name: "Counting",
  localAction: (next, action) =>
    function (ctx) {
      if (action.name === products.listMany.name) lists.push(...(ctx.params as Params<typeof products.listMany>).lists);
      return next.call(this, ctx) as unknown;
    },
};

// Gateway and services on separate nodes, so that messages are serialised as JSON.
beforeAll(async () => {
  shop = await startShop({ nodes: [["api", "users"], ["products"], ["orders"]], broker: { middlewares: [counting] } });
  broker = shop.node("api");
  seller = shop.client();
  await seller.signUp();
  database = new Postgres(shop.databases.orders.url);
  await database.connect();
});
afterAll(async () => {
  await database.end();
  await shop.stop();
});

describe("orders in a batch", () => {
  it("one invalid order among 128 gets its error, and the 127 others are created, in the requested order", async () => {
    const product = await seller.createProduct({ quantity: 1_000 });
    const orderRequests = Array.from({ length: 128 }, (_, i) => orderRequest(i === 77 ? UNKNOWN : product));
    const made = await createMany(orderRequests);
    expect(codes(made)).toEqual(orderRequests.map((_, i) => (i === 77 ? "PRODUCT_NOT_FOUND" : "new")));
    expect(made.map((one) => ("order" in one ? one.order.user_id : undefined))).toEqual(
      orderRequests.map(({ user_id }, i) => (i === 77 ? undefined : user_id)),
    );
  });

  it("one that the database refuses gets its error, and the others are created", async () => {
    const product = await seller.createProduct();
    const unlucky = orderRequest(product);
    await database.query(`alter table orders add constraint for_a_test check (user_id <> '${unlucky.user_id}')`);
    const made = await createMany([orderRequest(product), unlucky, orderRequest(product)]);
    await database.query("alter table orders drop constraint for_a_test");
    expect(codes(made)).toEqual(["new", "INTERNAL_ERROR", "new"]);
  });

  it("duplicates with one key create one order; one with another body is refused; keys of different users are independent", async () => {
    const product = await seller.createProduct({ quantity: 10 });
    const user_id = somebody();
    const made = await createMany([
      orderRequest(product, { user_id, key: "k" }),
      orderRequest(product, { user_id, key: "k" }),
      orderRequest(product, { user_id, key: "k", quantity: 2 }),
      orderRequest(product, { key: "k" }),
    ]);
    expect(codes(made)).toEqual(["new", "replayed", "IDEMPOTENCY_KEY_REUSED", "new"]);
    const [first, twin, , other] = idsOf(made);
    expect(twin).toBe(first);
    expect(other).not.toBe(first);
    const { rowCount } = await database.query("select from orders where user_id = $1", [user_id]);
    expect(rowCount).toBe(1);
  });

  it("a retry among new ones gets the first response, even if its product is gone", async () => {
    const [stays, goes] = [await seller.createProduct(), await seller.createProduct()];
    const first = orderRequest(goes, { key: "again" });
    const [before] = await createMany([first]);
    await seller.delete(`/products/${goes}`);
    const made = await createMany([orderRequest(stays), first, orderRequest(goes)]);
    expect(codes(made)).toEqual(["new", "replayed", "PRODUCT_NOT_FOUND"]);
    expect(made[1]).toEqual({ ...before, replayed: true });
  });

  it("one whose key is being written elsewhere gets its error; the others are not affected", async () => {
    const product = await seller.createProduct({ quantity: 1_000 });
    const held = orderRequest(product, { key: "held" });
    await database.query("begin");
    await database.query(
      "insert into orders (user_id, idempotency_key, request_hash, lines_digest, total_cents) values ($1, 'held', '', '', 0)",
      [held.user_id],
    );
    const orderRequests = [held, ...Array.from({ length: 30 }, () => orderRequest(product))];
    const made = await call(broker, orders.createMany, { orders: orderRequests }, { timeout: 10_000 }); // allows for a busy machine
    expect(codes(made)).toEqual(["IDEMPOTENCY_IN_FLIGHT", ...Array.from({ length: 30 }, () => "new")]);
    await database.query("rollback");
  });

  it("100 that arrive at once are written by fewer statements, and every one is confirmed", async () => {
    const product = await seller.createProduct({ quantity: 100 });
    const buyer = shop.client();
    await buyer.signUp();
    const responses = await Promise.all(Array.from({ length: 100 }, () => buyer.order(product, 1)));
    expect(responses.filter(({ status }) => status === 201)).toHaveLength(100);
    const ids = responses.map(({ body }) => String(body["id"]));
    await until("all are confirmed", async () => {
      const { rowCount } = await database.query("select from orders where id = any($1) and status = 'CONFIRMED'", [ids]);
      return rowCount === 100;
    });
    const { rows } = await database.query<{ n: number }>(
      "select count(distinct xmin::text)::int as n from order_lines where order_id = any($1)",
      [ids],
    );
    expect(rows[0]!.n).toBeLessThan(ids.length); // on a busy machine they don't all arrive at once
  });
});

describe("reads in a batch", () => {
  it("products are returned in the requested order, twice if requested twice, and null for missing ones", async () => {
    const [a, b, gone] = [await seller.createProduct(), await seller.createProduct(), await seller.createProduct()];
    await seller.delete(`/products/${gone}`);
    const found = await call(broker, products.getMany, { ids: [b, gone, a, UNKNOWN, b] });
    expect(found.map((product) => product?.id)).toEqual([b, undefined, a, undefined, b]);
  });

  it("a read sees everything written before its request, however many reads are in flight", async () => {
    const id = await seller.createProduct({ quantity: 5 });
    const crowd = shop.client();
    for (let quantity = 6; quantity < 16; quantity++) {
      const others = Array.from({ length: 20 }, () => crowd.get(`/products/${id}`));
      await seller.post(`/products/${id}/stock`, { delta: 1 });
      const { body } = await crowd.get(`/products/${id}`);
      expect(body["quantity"]).toBe(quantity);
      await Promise.all(others);
    }
  });

  it("requests for the same page at the same moment share one read of it; only the one with an invalid cursor is refused", async () => {
    const crowd = shop.client();
    await crowd.get("/products"); // opens a connection
    lists.length = 0;
    const asked = Array.from({ length: 60 }, (_, i) =>
      i % 3 === 2 ? "/products?limit=2&cursor=nonsense" : `/products?limit=${1 + (i % 3)}`,
    );
    const responses = await Promise.all(asked.map((path) => crowd.get(path)));
    expect(responses.map(({ status }) => status)).toEqual(asked.map((_, i) => (i % 3 === 2 ? 400 : 200)));
    expect(responses.map(({ body }) => (body["items"] as unknown[] | undefined)?.length)).toEqual(
      asked.map((_, i) => (i % 3 === 2 ? undefined : 1 + (i % 3))),
    );
    expect(lists.length).toBeLessThan(asked.length);
  });

  it("each user sees only their own orders, and an admin all", async () => {
    const product = await seller.createProduct({ quantity: 10 });
    const [mine, theirs] = [orderRequest(product), orderRequest(product)];
    const [a, b] = idsOf(await createMany([mine, theirs]));
    const wanted = [
      { id: a!, user_id: mine.user_id, role: "user" as const },
      { id: b!, user_id: mine.user_id, role: "user" as const },
      { id: b!, user_id: mine.user_id, role: "admin" as const },
      { id: UNKNOWN, user_id: mine.user_id, role: "admin" as const },
    ];
    const found = await call(broker, orders.getMany, { orders: wanted });
    expect(found.map((order) => order?.id)).toEqual([a, undefined, b, undefined]);
  });
});
