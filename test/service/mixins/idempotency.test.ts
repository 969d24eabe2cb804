import { randomUUID } from "node:crypto";
import type { Middleware } from "moleculer";
import { Client as Postgres } from "pg";
import type { Client } from "../../../testkit/client";
import { testId } from "../../../testkit/ids";
import { ADMIN } from "../../../testkit/admin";
import { startShop, type Shop } from "../../../testkit/shop";

/** Orders stay PENDING, so that only requests change them. */
const losing: Middleware = {
  name: "Losing",
  localEvent: (next, event) => (ctx) => (event.name === "order.created" ? Promise.resolve() : next(ctx)),
};

let shop: Shop, catalogue: Postgres, book: Postgres;
let seller: Client, buyer: Client, admin: Client;

beforeAll(async () => {
  shop = await startShop({ broker: { middlewares: [losing] } });
  [seller, buyer, admin] = [shop.client(), shop.client(), shop.client()];
  await Promise.all([seller.signUp(), buyer.signUp(), admin.login(ADMIN.email, ADMIN.password)]);
  [catalogue, book] = [new Postgres(shop.databases.products.url), new Postgres(shop.databases.orders.url)];
  await Promise.all([catalogue.connect(), book.connect()]);
});
afterAll(async () => {
  await Promise.all([catalogue.end(), book.end()]);
  await shop.stop();
});

const count = async (database: Postgres, sql: string, values: unknown[] = []) => (await database.query(sql, values)).rowCount;
const adjustments = (id: string) => count(catalogue, "select from stock_movements where product_id = $1 and kind = 'ADJUSTMENT'", [id]);
const order = async (): Promise<string> => String((await buyer.order(await seller.createProduct(), 1)).body["id"]);

/** @returns the id of the order's outbox row, which is parked */
async function park(orderId: string): Promise<number> {
  const { rows } = await book.query<{ id: string }>("update outbox set state = 'PARKED' where subject = $1 returning id", [orderId]);
  return Number(rows[0]!.id);
}

interface Sent {
  who: Client;
  path: string;
  body: object;
  headers?: Record<string, string>;
}

/** POST with the raw response, since a replay must be identical to the first response, byte for byte. */
async function post({ who, path, body, headers }: Sent, key: string) {
  const response = await fetch(shop.url + path, {
    method: "POST",
    headers: {
      "Content-Type": "application/json",
      Authorization: `Bearer ${who.token!}`,
      "Idempotency-Key": key,
      ...headers,
    },
    body: JSON.stringify(body),
  });
  const text = await response.text();
  const [location, etag, replayed] = ["location", "etag", "idempotent-replayed"].map((name) => response.headers.get(name));
  return { status: response.status, code: /"code":"(\w+)"/.exec(text)?.[1], text, location, etag, replayed };
}

const REUSED = { status: 422, code: "IDEMPOTENCY_KEY_REUSED", replayed: null };

interface Case {
  request: Sent;
  /** What makes it another request. */
  other: Partial<Sent>;
  /** Changes the resource, so that the request would be refused, or take effect a second time. */
  moveOn: () => Promise<unknown>;
  /** How often the request has taken effect. */
  effects: () => Promise<number | null>;
}

const CASES: [route: string, status: number, make: () => Promise<Case>][] = [
  [
    "/products",
    201,
    () => {
      const body = { name: `Lamp ${randomUUID()}`, price: 5, quantity: 3 };
      return Promise.resolve({
        request: { who: seller, path: "/products", body },
        other: { body: { ...body, price: 6 } },
        moveOn: () => catalogue.query("update products set archived_at = now() where name = $1", [body.name]),
        effects: () => count(catalogue, "select from products where name = $1", [body.name]),
      });
    },
  ],
  [
    "/products/:id/stock",
    200,
    async () => {
      const id = await seller.createProduct({ quantity: 15 });
      return {
        request: { who: seller, path: `/products/${id}/stock`, body: { delta: -5 } },
        other: { body: { delta: -4 } },
        moveOn: () => seller.delete(`/products/${id}`),
        effects: () => adjustments(id),
      };
    },
  ],
  [
    "/orders/:id/cancel",
    200,
    async () => {
      const id = await order();
      return {
        request: { who: buyer, path: `/orders/${id}/cancel`, body: {} },
        other: { path: `/orders/${testId(999_999)}/cancel` },
        moveOn: () => book.query("update orders set status = 'REJECTED', version = version + 1 where id = $1", [id]),
        effects: () => count(book, "select from outbox where subject = $1 and event = 'order.cancelled'", [id]),
      };
    },
  ],
  [
    "/admin/outbox/:id/replay",
    202,
    async () => {
      const id = await order();
      return {
        request: { who: admin, path: `/admin/outbox/${await park(id)}/replay`, body: {} },
        other: { path: "/admin/outbox/999999/replay" },
        moveOn: () => park(id),
        effects: async () => Number((await book.query("select version - 1 as times from orders where id = $1", [id])).rows[0].times),
      };
    },
  ],
];

describe.each(CASES)("a POST %s with an Idempotency-Key", (_route, status, make) => {
  let request: Sent, other: Partial<Sent>, moveOn: Case["moveOn"], effects: Case["effects"];
  let key: string;
  beforeEach(async () => {
    ({ request, other, moveOn, effects } = await make());
    key = randomUUID();
  });

  it("that is repeated gets the first response and takes effect once, even after a later change", async () => {
    const first = await post(request, key);
    expect([first.status, first.replayed]).toEqual([status, null]);
    expect(await post(request, key)).toEqual({ ...first, replayed: "true" });
    await moveOn();
    expect(await post(request, key)).toEqual({ ...first, replayed: "true" });
    expect(await effects()).toBe(1);
  });

  it("of another request → 422, and the first request can still be repeated", async () => {
    const first = await post(request, key);
    expect(await post({ ...request, ...other }, key)).toMatchObject(REUSED);
    expect(await post(request, key)).toEqual({ ...first, replayed: "true" });
    expect(await effects()).toBe(1);
  });

  it("that is sent twenty times at once takes effect once, and all but one of the equal responses are replays", async () => {
    const all = await Promise.all(Array.from({ length: 20 }, () => post(request, key)));
    expect(new Set(all.map(({ replayed: _, ...response }) => JSON.stringify(response))).size).toBe(1);
    expect(all[0]!.status).toBe(status);
    expect(all.filter(({ replayed }) => replayed === null)).toHaveLength(1);
    expect(await effects()).toBe(1);
  });
});

describe("an Idempotency-Key", () => {
  const lamp = (who: Client): Sent => ({ who, path: "/products", body: { name: "Lamp", price: 5, quantity: 3 } });
  const stock = (id: string, delta: number, tag?: string): Sent => ({
    who: seller,
    path: `/products/${id}/stock`,
    body: { delta },
    ...(tag !== undefined && { headers: { "If-Match": tag } }),
  });
  const cancel = (id: string): Sent => ({ who: buyer, path: `/orders/${id}/cancel`, body: {} });
  const replay = (id: number): Sent => ({ who: admin, path: `/admin/outbox/${id}/replay`, body: {} });

  it("is separate for each user, and for POST /orders, other requests for orders, and requests for products", async () => {
    const key = randomUUID();
    const [one, two] = [await post(lamp(seller), key), await post(lamp(buyer), key)];
    const items = [{ product_id: await seller.createProduct(), quantity: 1 }];
    const placed = await post({ who: buyer, path: "/orders", body: { items } }, key);
    const cancelled = await post(cancel((JSON.parse(placed.text) as { id: string }).id), key);
    expect([one, two, placed, cancelled].map(({ status, replayed }) => [status, replayed])).toEqual([
      [201, null],
      [201, null],
      [201, null],
      [200, null],
    ]);
    expect(one.location).not.toBe(two.location);
  });

  it("of another route, or with another If-Match, is one of another request", async () => {
    const [id, key] = [await seller.createProduct(), randomUUID()];
    const first = await post(stock(id, 1, '"1-1"'), key);
    expect(first).toMatchObject({ status: 200, etag: '"1-2"' });
    for (const another of [stock(id, 1), stock(id, 1, '"1-2"'), lamp(seller)]) expect(await post(another, key)).toMatchObject(REUSED);
    expect(await post(stock(id, 1, '"1-1"'), key)).toEqual({ ...first, replayed: "true" });
    expect(await adjustments(id)).toBe(1);
  });

  it.each<[what: string, status: number, make: () => Promise<[refused: Sent, accepted: Sent]>]>([
    ["an invalid body", 422, () => Promise.resolve<[Sent, Sent]>([{ ...lamp(seller), body: { name: "" } }, lamp(seller)])],
    [
      "too little stock",
      409,
      async () => {
        const id = await seller.createProduct();
        return [stock(id, -1_000), stock(id, -1)];
      },
    ],
    [
      "a stale If-Match",
      412,
      async () => {
        const id = await seller.createProduct();
        return [stock(id, 1, '"7-7"'), stock(id, 1)];
      },
    ],
    [
      "another seller's product",
      403,
      async () => [
        { ...stock(await seller.createProduct(), 1), who: buyer },
        { ...stock(await buyer.createProduct(), 1), who: buyer },
      ],
    ],
    [
      "an order that was rejected",
      409,
      async () => {
        const id = await order();
        await book.query("update orders set status = 'REJECTED' where id = $1", [id]);
        return [cancel(id), cancel(await order())];
      },
    ],
    ["an outbox row that does not exist", 404, async () => [replay(999_999), replay(await park(await order()))]],
  ])("may be used again after %s", async (_what, status, make) => {
    const [[refused, accepted], key] = [await make(), randomUUID()];
    expect((await post(refused, key)).status).toBe(status);
    const { status: made, replayed } = await post(accepted, key);
    expect([Math.floor(made / 100), replayed]).toEqual([2, null]);
  });

  it("of a cancel that finds the order cancelled is not stored, so that such requests can't fill the disk", async () => {
    const id = await order();
    const kept = () => count(book, "select from idempotent_requests where response ->> 'id' = $1", [id]);
    expect((await post(cancel(id), randomUUID())).status).toBe(200);
    const key = randomUUID();
    for (const _ of [1, 2]) expect(await post(cancel(id), key)).toMatchObject({ status: 200, replayed: null });
    expect(await kept()).toBe(1);
  });

  it("of a change by an admin is repeated without a second entry in the audit log", async () => {
    const [id, key] = [await seller.createProduct(), randomUUID()];
    const request = { ...stock(id, 1), who: admin };
    expect([(await post(request, key)).replayed, (await post(request, key)).replayed]).toEqual([null, "true"]);
    expect((await admin.get(`/admin/audit-log?subject=${id}`)).body["items"]).toMatchObject([{ action: "stock.adjusted" }]);
  });

  it("is ignored, even if invalid, by methods other than POST; and without one nothing is stored", async () => {
    const path = `/products/${await seller.createProduct()}`;
    const stored = () => count(catalogue, "select from idempotent_requests");
    const before = await stored();
    for (const key of [randomUUID(), "a b"]) {
      const headers = { "Idempotency-Key": key };
      for (const price of [2, 3]) {
        const { status, body, headers: got } = await seller.patch(path, { price }, { headers });
        expect([status, body["price"], got.has("idempotent-replayed")]).toEqual([200, price, false]);
      }
      expect((await seller.get(path, { headers })).status).toBe(200);
    }
    for (const n of [1, 2]) expect((await seller.post(`${path}/stock`, { delta: 1 })).body["quantity"]).toBe(50 + n);
    const headers = { "Idempotency-Key": randomUUID() };
    for (const status of [204, 404]) expect((await seller.delete(path, { headers })).status).toBe(status);
    expect(await stored()).toBe(before);
  });
});
