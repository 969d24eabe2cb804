import { digestOf } from "../../contracts/lines";
import { Client as Postgres } from "pg";
import { until } from "../../testkit/until";
import type { Client } from "../../testkit/client";
import { testId } from "../../testkit/ids";
import { ADMIN } from "../../testkit/admin";
import { startShop, type Shop } from "../../testkit/shop";

let shop: Shop;
let admin: Client;

beforeAll(async () => {
  shop = await startShop();
  admin = await shop.client().login(ADMIN.email, ADMIN.password);
});
afterAll(() => shop.stop());

describe("an outbox row that breaks its contract", () => {
  let id: number;
  let order: string;

  it("is parked and listed for admins, its order shows the reason, and other orders are processed", async () => {
    const product = await admin.createProduct({ quantity: 5 });
    const db = new Postgres(shop.databases.orders.url);
    await db.connect();
    const { rows } = await db.query<{ order_id: string; id: number }>(
      `with o as (
         insert into orders (user_id, idempotency_key, request_hash, lines_digest, total_cents) values ($2, 'broken', 'x', $3, 1999) returning id, created_at
       ), l as (
         insert into order_lines (order_id, product_id, name, unit_price_cents, quantity) select id, $1, 'Lamp', 1999, 1 from o
       ), h as (
         insert into order_history (order_id, status, at) select id, 'PENDING', created_at from o
       )
       insert into outbox (subject, event, payload) select id, 'order.created', '{"lines": "none"}' from o returning id, subject as order_id`,
      [product, testId(1), digestOf([{ product_id: product, quantity: 1 }])],
    );
    await db.end();
    id = Number(rows[0]?.id);
    order = rows[0]!.order_id;

    const sound = String((await admin.order(product, 1)).body["id"]);
    expect(await admin.decided(sound)).toMatchObject({ status: "CONFIRMED" });
    await until("the row is parked", async () => (await admin.get("/admin/outbox?state=parked")).body["items"].length === 1);
    const [item] = (await admin.get("/admin/outbox")).body["items"];
    expect(item).toMatchObject({ id, order_id: order, event: "order.created", state: "PARKED", last_error: "lines must be array" });
    expect((await admin.get(`/orders/${order}`)).body).toMatchObject({ status: "PENDING", reason: expect.stringContaining("parked") });
    expect((await admin.get("/admin/consistency")).body).toMatchObject({ ok: true, parked: 1 });
  });

  it("is published again when an admin repairs and replays it, and its order is confirmed", async () => {
    const db = new Postgres(shop.databases.orders.url);
    await db.connect();
    await db.query(
      `update outbox set payload = (select jsonb_build_object('lines', jsonb_agg(jsonb_build_object('product_id', product_id, 'quantity', quantity)))
         from order_lines where order_id = $1) where subject = $1`,
      [order],
    );
    await db.end();
    expect((await admin.post(`/admin/outbox/${id}/replay`)).status).toBe(202);
    expect(await admin.decided(order)).toMatchObject({ status: "CONFIRMED", reason: null });
  });

  it.each([
    ["that is no longer parked", () => id, 409, "NOT_PARKED"],
    ["that does not exist", () => 999_999, 404, "NOT_FOUND"],
  ])("%s can't be replayed", async (_which, which, status, code) => {
    expect(await admin.post(`/admin/outbox/${which()}/replay`)).toMatchObject({ status, body: { code } });
  });

  it("is not accessible to a user", async () => {
    const client = shop.client();
    await client.signUp();
    expect(await client.get("/admin/outbox")).toMatchObject({ status: 403, body: { code: "FORBIDDEN" } });
    expect(await client.post(`/admin/outbox/${id}/replay`)).toMatchObject({ status: 403, body: { code: "FORBIDDEN" } });
  });
});
