import type { Middleware, ServiceBroker } from "moleculer";
import { Client as Postgres } from "pg";
import { asSystem, call } from "../../../broker/contract";
import { digestOf } from "../../../contracts/lines";
import { compareIds } from "../../../contracts/contract";
import * as orders from "../../../contracts/orders";
import { stockSettled } from "../../../contracts/products";
import type { Role } from "../../../contracts/users";
import { hashRequest } from "../../../services/orders/order";
import { until } from "../../../testkit/until";
import type { Client } from "../../../testkit/client";
import { testId, UUID_V7 } from "../../../testkit/ids";
import { ADMIN } from "../../../testkit/admin";
import { startShop, type Shop } from "../../../testkit/shop";

let shop: Shop, broker: ServiceBroker, database: Postgres;
let buyer: Client, seller: Client, admin: Client;

/** Names of the events that are currently lost. */
const lost = new Set<string>();
const losing: Middleware = {
  name: "Losing",
  localEvent: (next, event) => (ctx) => (lost.has(event.name ?? "") ? Promise.resolve() : next(ctx)),
};

const as = (id: string, role: Role = "user") => ({ meta: { user: { id, role } } });
/** The id of a user that no other test uses, so that the user's orders are a list of their own. */
let lastUser = 0;
const somebody = () => as(testId(++lastUser));
/** The id of a product that doesn't exist. */
const UNKNOWN = testId(999_999);
/** The body of an order, by product and quantity. */
const basket = (...lines: [product_id: string, quantity: number][]) => ({
  items: lines.map(([product_id, quantity]) => ({ product_id, quantity })),
});
const create = (basket: { items: orders.Line[] }, caller = somebody()) => call(broker, orders.create, basket, caller);
const count = async (sql: string, values: unknown[] = []) => (await database.query(sql, values)).rowCount;
/** Statements of the shop that are writing orders at this moment. */
const WRITING = `select from pg_stat_activity
  where datname = current_database() and application_name = 'orders' and state = 'active' and query like '%insert into orders%'`;
const settled = () => until("all is settled", async () => (await count("select from outbox where state <> 'SETTLED'")) === 0);
const stocked = async (quantity: number) => [await seller.createProduct({ quantity }), await seller.createProduct({ quantity })] as const;

/** POST /orders with the raw response, since a replay must be identical to the first response, byte for byte. */
async function post(body: object, key?: string, who = buyer) {
  const headers = { "Content-Type": "application/json", Authorization: `Bearer ${who.token!}` };
  const response = await fetch(`${shop.url}/orders`, {
    method: "POST",
    headers: key === undefined ? headers : { ...headers, "Idempotency-Key": key },
    body: JSON.stringify(body),
  });
  const text = await response.text();
  const [location, etag, replayed] = ["location", "etag", "idempotent-replayed"].map((name) => response.headers.get(name));
  return { status: response.status, text, body: JSON.parse(text) as orders.Order, location, etag, replayed };
}

beforeAll(async () => {
  shop = await startShop({ broker: { middlewares: [losing] } });
  broker = shop.node("orders");
  [buyer, seller, admin] = [shop.client(), shop.client(), shop.client()];
  await Promise.all([buyer.signUp(), seller.signUp(), admin.login(ADMIN.email, ADMIN.password)]);
  database = new Postgres(shop.databases.orders.url);
  await database.connect();
});
afterEach(() => lost.clear());
afterAll(async () => {
  await database.end();
  await shop.stop();
});

describe("a new order", () => {
  it("is PENDING, adds up lines of one product, and sums to the cent", async () => {
    const [a, b] = [await seller.createProduct({ name: "A", price: 0.1 }), await seller.createProduct({ name: "B", price: 1299.99 })];
    const { status, body, location, etag, replayed } = await post(basket([b, 1], [a, 2], [b, 2]));
    expect([status, location, etag, replayed]).toEqual([201, `/orders/${body.id}`, '"1"', null]);
    expect(body).toEqual({
      id: expect.stringMatching(UUID_V7),
      user_id: (await buyer.get("/me")).body["id"],
      status: "PENDING",
      total_price: 3900.17,
      items: [
        { product_id: a, name: "A", unit_price: 0.1, quantity: 2 },
        { product_id: b, name: "B", unit_price: 1299.99, quantity: 3 },
      ].sort((one, other) => compareIds(one.product_id, other.product_id)),
      reason: null,
      history: [{ status: "PENDING", at: body.created_at }],
      created_at: expect.any(String),
      updated_at: body.created_at,
    });
  });

  it("has 100 lines of 10,000 units at the highest price", async () => {
    const product = await seller.createProduct({ price: 9_999_999.99, quantity: 1_000_000_000 });
    const { order } = await create(basket(...Array.from({ length: 100 }, (): [string, number] => [product, 10_000])));
    expect(order).toMatchObject({ total_price: 9_999_999_990_000, items: [{ quantity: 1_000_000 }] });
  });

  it("keeps the name and price of its creation, whatever happens to the product; its ETag changes exactly when the order does", async () => {
    lost.add("order.created");
    const product = await seller.createProduct({ name: "Old", price: 5 });
    const id = String((await buyer.order(product, 2)).body["id"]);
    const get = (tag: string) => buyer.get(`/orders/${id}`, { headers: { "If-None-Match": tag } });
    expect((await get('"1"')).status).toBe(304);
    lost.clear();
    const before = await buyer.decided(id);
    await seller.patch(`/products/${product}`, { name: "New", price: 9 });
    await seller.delete(`/products/${product}`);
    const { body, headers } = await get('"1"');
    expect([body, headers.get("etag")]).toEqual([before, '"2"']);
    expect(before).toMatchObject({ total_price: 10, items: [{ name: "Old", unit_price: 5 }] });
    expect((await admin.get(`/orders/${id}`)).body).toEqual(before);
  });

  it("for an unknown, short or archived product is refused, and leaves nothing behind", async () => {
    const [product, archived] = await stocked(3);
    await seller.delete(`/products/${archived}`);
    const caller = somebody();
    const unknown = { type: "PRODUCT_NOT_FOUND", message: expect.stringContaining(UNKNOWN) };
    await expect(create(basket([product, 1], [UNKNOWN, 1]), caller)).rejects.toMatchObject(unknown);
    await expect(create(basket([archived, 1]), caller)).rejects.toMatchObject({ type: "PRODUCT_NOT_FOUND" });
    const short = { type: "INSUFFICIENT_STOCK", message: `not enough stock: product ${product}: 4 wanted, 3 left` };
    await expect(create(basket([product, 2], [product, 2]), caller)).rejects.toMatchObject(short);
    expect((await call(broker, orders.list, {}, caller)).items).toEqual([]);
  });
});

it("an order without a key is created once, even though its caller timed out before it was written", async () => {
  const product = await seller.createProduct({ quantity: 10 });
  const [caller, other] = [somebody(), new Postgres(shop.databases.orders.url)];
  await other.connect();
  try {
    await other.query("begin");
    await other.query("lock table order_lines in share mode");
    const late = call(broker, orders.create, basket([product, 1]), { ...caller, timeout: 200 });
    await expect(late).rejects.toMatchObject({ type: "REQUEST_TIMEOUT" });
  } finally {
    await other.end(); // also releases the lock
  }
  const [mine, values] = ["select from orders where user_id = $1", [caller.meta.user.id]];
  await until("the order is written", async () => ((await count(mine, values)) ?? 0) > 0);
  await until("nothing is being written", async () => (await count(WRITING)) === 0);
  expect(await count(mine, values)).toBe(1);
});

describe("the list of orders", () => {
  const caller = somebody();
  const newest: string[] = [];
  const createNewest = async () => {
    const { order } = await create(basket([await seller.createProduct(), 1]), caller);
    newest.unshift(order.id);
    await until("the next one is newer", () => Date.now() > Date.parse(order.created_at));
  };
  beforeAll(async () => {
    for (let i = 0; i < 5; i++) await createNewest();
    await call(broker, orders.cancel, { id: newest[1]! }, caller);
    await settled();
  });
  const ids = async (params: object, who = caller) => (await call(broker, orders.list, params, who)).items.map(({ id }) => id);

  it("has one's own orders, newest first, page by page, though new ones are inserted meanwhile", async () => {
    const seen: string[] = [];
    for (let cursor: string | null | undefined; cursor !== null;) {
      const page = await call(broker, orders.list, { limit: 2, ...(cursor !== undefined && { cursor }) }, caller);
      seen.push(...page.items.map(({ id }) => id));
      cursor = page.next_cursor;
      await createNewest();
    }
    expect(seen).toEqual(newest.slice(-5));
  });

  it("is filtered by status; another user's or all orders are only for admins", async () => {
    await settled();
    expect(await ids({ status: "CANCELLED" })).toEqual([newest.at(-4)]);
    expect(await ids({ status: "CONFIRMED" })).toEqual(newest.filter((id) => id !== newest.at(-4)));
    expect(await ids({ status: "REJECTED" })).toEqual([]);
    const { id } = caller.meta.user;
    const root = as(testId(0), "admin");
    expect(await ids({ user_id: id }, root)).toEqual(newest);
    expect(await ids({ all: true, limit: 100 }, root)).toEqual(expect.arrayContaining(newest));
    expect(await ids({}, root)).toEqual([]);
    expect(await ids({ user_id: id })).toEqual(newest);
    for (const params of [{ user_id: testId(0) }, { all: true }]) await expect(ids(params)).rejects.toMatchObject({ type: "FORBIDDEN" });
  });

  it("over HTTP links its next page with its filters", async () => {
    const { headers, body } = await admin.get(`/orders?user_id=${caller.meta.user.id}&limit=2`);
    expect(headers.get("link")).toBe(`</orders?user_id=${caller.meta.user.id}&limit=2&cursor=${body["next_cursor"]}>; rel="next"`);
    expect((await admin.get(/<(.*)>/.exec(headers.get("link")!)![1]!)).body["items"]).toMatchObject([{ id: newest[2] }, { id: newest[3] }]);
  });
});

describe("a cancel", () => {
  const history = async (id: string) => (await buyer.get<orders.Order>(`/orders/${id}`)).body.history.map(({ status }) => status);

  it("of a CONFIRMED order releases the stock once, however often it is requested", async () => {
    const product = await seller.createProduct({ quantity: 5 });
    const id = String((await buyer.order(product, 5)).body["id"]);
    await buyer.decided(id);
    const cancelled = await Promise.all(Array.from({ length: 10 }, () => buyer.post(`/orders/${id}/cancel`)));
    for (const { status, body } of cancelled) expect([status, body["status"]]).toEqual([200, "CANCELLED"]);
    await settled();
    const again = await admin.post(`/orders/${id}/cancel`);
    expect([again.status, again.body]).toEqual([200, cancelled[0]!.body]);
    await settled();
    expect(await seller.quantityOf(product)).toBe(5);
    expect(await history(id)).toEqual(["PENDING", "CONFIRMED", "CANCELLED"]);
  });

  it.each([
    ["before products has received it", ["order.created"], 5],
    ["before the reply has arrived", ["stock.settled"], 2],
    ["with both events lost for a while", ["order.created", "order.cancelled"], 5],
  ])("of a PENDING order, %s, leaves the stock as it was", async (_when, events, left) => {
    events.forEach((event) => lost.add(event));
    const product = await seller.createProduct({ quantity: 5 });
    const id = String((await buyer.order(product, 3)).body["id"]);
    await until("products has processed what it has received", async () => (await seller.quantityOf(product)) === left);
    expect((await buyer.post(`/orders/${id}/cancel`)).body["status"]).toBe("CANCELLED");
    lost.clear();
    await settled();
    expect(await seller.quantityOf(product)).toBe(5);
    expect(await history(id)).toEqual(["PENDING", "CANCELLED"]);
  });
});

describe("an order whose stock was gone before it was reserved", () => {
  it("is REJECTED, takes nothing, names the short lines with quantities, and can't be cancelled", async () => {
    lost.add("order.created");
    const [[plenty, few], none] = [await stocked(5), await seller.createProduct()];
    const { body } = await post(basket([plenty, 3], [few, 3], [none, 3]));
    await seller.post(`/products/${few}/stock`, { delta: -3 });
    await seller.delete(`/products/${none}`);
    lost.clear();
    const order = await buyer.decided(body.id);
    const reason = `not enough stock: product ${few}: 3 wanted, 2 left; no longer sold: product ${none}`;
    expect(order).toMatchObject({ status: "REJECTED", reason, history: [{ status: "PENDING" }, { status: "REJECTED" }] });
    expect([await seller.quantityOf(plenty), await seller.quantityOf(few)]).toEqual([5, 2]);
    expect((await buyer.post(`/orders/${body.id}/cancel`)).body["code"]).toBe("ORDER_NOT_CANCELLABLE");
    expect((await buyer.get(`/orders/${body.id}`)).body).toEqual(order);
  });

  it("stays as it was decided, whatever a late reply contains", async () => {
    const { order } = await create(basket([await seller.createProduct(), 1]));
    await settled();
    await broker.emit(stockSettled.name, {
      orders: [{ order_id: order.id, outcome: "REJECTED", lines_digest: digestOf(order.items), shortages: [] }],
    });
    expect((await admin.get(`/orders/${order.id}`)).body["status"]).toBe("CONFIRMED");
  });
});

describe("an Idempotency-Key", () => {
  let product: string, key: string, first: Awaited<ReturnType<typeof post>>;
  beforeEach(async () => {
    product = await seller.createProduct({ quantity: 100 });
    key = `key-${product}`;
    first = await post(basket([product, 2]), key);
  });
  const expectReplay = async (body: object = basket([product, 2])) => expect(await post(body, key)).toEqual({ ...first, replayed: "true" });

  it("of fifty concurrent requests creates one order with one response, and all but the first are replays", async () => {
    const responses = await Promise.all(Array.from({ length: 50 }, () => post(basket([product, 3]), `${key}-50`)));
    expect(new Set(responses.map(({ status, text }) => `${status} ${text}`))).toEqual(new Set([`201 ${responses[0]!.text}`]));
    expect(responses.filter(({ replayed }) => replayed === null)).toHaveLength(1);
    expect(await count("select from orders where idempotency_key = $1", [`${key}-50`])).toBe(1);
    await settled();
    expect(await seller.quantityOf(product)).toBe(95);
  });

  it("with equivalent lines is the same request; with others → 422, and the first can still be replayed", async () => {
    await expectReplay(basket([product, 1], [product.toUpperCase(), 1]));
    const other = await seller.createProduct();
    const { text } = await post(basket([product, 1], [other, 1]), `${key}-2`);
    expect((await post(basket([other, 1], [product, 1]), `${key}-2`)).text).toBe(text);
    for (const body of [basket([product, 3]), basket([UNKNOWN, 2])])
      expect(await post(body, key)).toMatchObject({ status: 422, body: { code: "IDEMPOTENCY_KEY_REUSED" }, replayed: null });
    await expectReplay();
  });

  it("replays the first response after the order was confirmed and cancelled, and its product changed, sold out and archived", async () => {
    await buyer.decided(first.body.id);
    await expectReplay();
    await seller.patch(`/products/${product}`, { name: "New", price: 1 });
    await seller.post(`/products/${product}/stock`, { delta: -98 });
    await expectReplay();
    await buyer.post(`/orders/${first.body.id}/cancel`);
    await seller.delete(`/products/${product}`);
    await expectReplay();
  });

  it("of another user creates another order, and so does a request without a key", async () => {
    const others = [await post(basket([product, 2]), key, seller), await post(basket([product, 7]), key, admin)];
    others.push(await post(basket([product, 2])), await post(basket([product, 2])));
    for (const { status, replayed } of others) expect([status, replayed]).toEqual([201, null]);
    expect(new Set([first, ...others].map(({ body }) => body.id)).size).toBe(5);
  });

  it.each([
    ["an unknown product", () => basket([UNKNOWN, 1]), 404],
    ["too little stock", () => basket([product, 1_000]), 409],
    ["an invalid body", () => basket([product, 0]), 422],
  ])("may be used again after %s", async (_what, body, status) => {
    expect((await post(body(), `${key}-again`)).status).toBe(status);
    expect(await post(basket([product, 1]), `${key}-again`)).toMatchObject({ status: 201, replayed: null });
  });

  it("accepts any visible ASCII up to 255 characters, case-sensitively", async () => {
    const keys = ["!", "~", "'", '"', "\\", "%00", "x".repeat(254), "x".repeat(255), "A", "a"];
    const ask = () => Promise.all(keys.map(async (odd) => (await post(basket([product, 1]), odd)).body.id));
    const ids = await ask();
    expect(new Set(ids).size).toBe(keys.length);
    expect(await ask()).toEqual(ids);
  });

  describe("whose first request is not committed yet", () => {
    let other: Postgres;
    beforeEach(async () => {
      other = new Postgres(shop.databases.orders.url);
      await other.connect();
      await other.query("begin");
      const { items } = basket([product, 5]);
      // Written as another node would.
      await other.query(
        `with o as (insert into orders (user_id, idempotency_key, request_hash, lines_digest, total_cents) values ($1, $2, $3, $6, 9995) returning id),
           l as (insert into order_lines select id, $4, 'Lamp', 1999, 5 from o),
           h as (insert into order_history (order_id, status) select id, 'PENDING' from o)
         insert into outbox (subject, event, payload) select id, 'order.created', $5 from o`,
        [first.body.user_id, `${key}-held`, hashRequest({ items }), product, { lines: items }, digestOf(items)],
      );
    });
    afterEach(() => other.end());
    const WAITING = "select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";

    it("for 2 s → 409, and after that has failed, the key may be used again", async () => {
      const since = performance.now();
      expect(await post(basket([product, 5]), `${key}-held`)).toMatchObject({ status: 409, body: { code: "IDEMPOTENCY_IN_FLIGHT" } });
      expect(performance.now() - since).toBeGreaterThan(1_900);
      await other.query("rollback");
      expect(await post(basket([product, 5]), `${key}-held`)).toMatchObject({ status: 201, replayed: null });
    });

    it.each([undefined, "key"])("because a migration locks the whole table (key: %s) → 503 instead of 409", async (given) => {
      await other.query("rollback; begin; lock table outbox in share mode");
      expect(await post(basket([product, 5]), given && `${key}-${given}`)).toMatchObject({
        status: 503,
        body: { code: "SERVICE_UNAVAILABLE" },
      });
      await other.query("rollback");
    });

    it.each([
      ["commits → its order", "commit", 5, { status: 201, replayed: "true", body: { total_price: 99.95 } }],
      ["commits another body → 422", "commit", 4, { status: 422, replayed: null }],
      ["fails → a new order", "rollback", 5, { status: 201, replayed: null }],
    ])("and that meanwhile %s", async (_what, end, quantity, expected) => {
      const response = post(basket([product, quantity]), `${key}-held`);
      await until("the retry waits for the first request", async () => (await count(WAITING)) === 1);
      await other.query(end);
      expect(await response).toMatchObject(expected);
    });
  });
});

it("the audit finds nothing after all tests", async () => {
  await settled();
  expect(await call(broker, orders.audit, {}, asSystem())).toMatchObject({ ok: true, in_flight: 0, parked: 0 });
});

it("one key on two nodes at once creates one order; while products is unavailable a replay still works, a new order → 503, a cancel → 200", async () => {
  const split = await startShop({ nodes: [["api", "users", "orders"], ["orders"], ["products"]] });
  try {
    const client = split.client();
    const user = as(await client.signUp());
    const product = await client.createProduct({ quantity: 10 });
    const at = (node: number, key = "k") =>
      call(split.nodes[node]!, orders.create, { ...basket([product, 1]), idempotency_key: key }, user);
    const responses = await Promise.all(Array.from({ length: 40 }, (_, i) => at(i % 2)));
    expect(new Set(responses.map(({ order }) => JSON.stringify(order))).size).toBe(1);
    expect(responses.filter(({ replayed }) => !replayed)).toHaveLength(1);
    const { id } = responses[0]!.order;
    await client.decided(id);
    await split.node("products").stop();
    expect(await at(1)).toEqual({ order: responses[0]!.order, replayed: true });
    await expect(at(1, "another")).rejects.toMatchObject({ type: "SERVICE_UNAVAILABLE" });
    const cancelled = await client.post(`/orders/${id}/cancel`);
    expect([cancelled.status, cancelled.body["status"]]).toEqual([200, "CANCELLED"]);
  } finally {
    await split.stop();
  }
});
