import type { ServiceBroker } from "moleculer";
import { Client as Postgres } from "pg";
import { asSystem, call } from "../../../broker/contract";
import { MAX_ID } from "../../../contracts/contract";
import { audit } from "../../../contracts/orders";
import { testId } from "../../../testkit/ids";
import { startShop, type Shop } from "../../../testkit/shop";

/** How many orders the audit compares at a time. */
const WINDOW = 2_000;
const BUYER = testId(1);

let shop: Shop, broker: ServiceBroker, book: Postgres, stock: Postgres;

beforeAll(async () => {
  shop = await startShop({ nodes: [["products", "orders"]] });
  broker = shop.node("orders");
  [book, stock] = [new Postgres(shop.databases.orders.url), new Postgres(shop.databases.products.url)];
  await Promise.all([book.connect(), stock.connect()]);
});
afterAll(async () => {
  await Promise.all([book.end(), stock.end()]);
  await shop.stop();
});
afterEach(() => Promise.all([book.query("truncate orders cascade"), stock.query("truncate reservations cascade")]));

/** Inserts orders with a number of lines. @returns their ids, in creation order */
async function insertOrders(count: number, status: string, lines = 0): Promise<string[]> {
  const { rows } = await book.query<{ id: string }>(
    `with made as (
       insert into orders (user_id, idempotency_key, request_hash, lines_digest, status, total_cents)
       select $1, gen_random_uuid(), '-', '-', $2, 0 from generate_series(1, $3::int) returning id
     ), lines as (
       insert into order_lines (order_id, product_id, name, unit_price_cents, quantity)
       select id, gen_random_uuid(), 'Lamp', 0, n from made, generate_series(1, $4::int) as n
     )
     select id from made order by id`,
    [BUYER, status, count, lines],
  );
  return rows.map(({ id }) => id);
}

/** Inserts the matching reservations, with lines that are not sorted by product. */
async function reserve(orders: string[], state = "RESERVED"): Promise<void> {
  const { rows } = await book.query<{ order_id: string; lines: object[] }>(
    `select o.order_id, coalesce((select jsonb_agg(jsonb_build_object('product_id', product_id, 'quantity', quantity) order by quantity)
       from order_lines l where l.order_id = o.order_id), '[]') as lines
     from unnest($1::uuid[]) as o (order_id)`,
    [orders],
  );
  await stock.query(
    "insert into reservations (order_id, state, lines) select order_id, $2, lines from unnest($1::uuid[], $3::jsonb[]) as r (order_id, lines)",
    [rows.map(({ order_id }) => order_id), state, rows.map(({ lines }) => JSON.stringify(lines))],
  );
}

/** The audit's result for orders and their reservations. */
async function disagreements() {
  const { checks } = await call(broker, audit, {}, asSystem());
  const { violations, sample } = checks.find(({ name }) => name === "orders and reservations agree")!;
  return { violations, sample: sample.sort() };
}
const named = (ids: string[], what: string) => ({ violations: ids.length, sample: ids.map((id) => `order ${id}: ${what}`).sort() });
const LOST = "a reservation (RESERVED) without an order";

describe("the audit", () => {
  it("finds nothing if all agree, however many orders and lines there are, and whatever the order of the lines", async () => {
    await reserve(await insertOrders(2 * WINDOW + 1, "CONFIRMED", 2));
    await reserve(await insertOrders(250, "CONFIRMED", 100)); // more lines than fit into one response
    expect(await disagreements()).toEqual({ violations: 0, sample: [] });
  });

  it("finds a reservation without its order, whatever its id", async () => {
    const ids = await insertOrders(WINDOW + 100, "CANCELLED");
    const after = (id = ""): string => id.replace(/.{8}$/, (tail) => (parseInt(tail, 16) + 1).toString(16).padStart(8, "0"));
    const lost = [
      "00000000-0000-0000-0000-000000000001",
      testId(0),
      after(ids[0]), // among the orders of one window
      after(ids[WINDOW - 2]),
      after(ids[WINDOW - 1]), // between two windows
      after(ids.at(-1)), // newer than all orders
      "98f0bd1a-9a3c-4dbe-8a5c-2b4d6c8f0a1e",
      "ffffffff-ffff-ffff-ffff-fffffffffffe",
      MAX_ID,
    ];
    await reserve(lost);
    expect(await disagreements()).toEqual(named(lost, LOST));
  });

  it("accepts one that holds nothing, since its stock was released after its order was lost", async () => {
    await reserve([testId(1), MAX_ID], "RELEASED");
    await reserve([testId(2)], "REJECTED");
    expect(await disagreements()).toEqual({ violations: 0, sample: [] });
  });

  it("finds them if there are no orders at all", async () => {
    const lost = [testId(1), "98f0bd1a-9a3c-4dbe-8a5c-2b4d6c8f0a1e", MAX_ID];
    await reserve(lost);
    expect(await disagreements()).toEqual(named(lost, LOST));
  });

  it("counts more of them than fit into a message, and names some", async () => {
    await insertOrders(10, "CANCELLED");
    await stock.query("insert into reservations (order_id, state, lines) select new_id(), 'RESERVED', '[]' from generate_series(1, 12000)");
    await insertOrders(10, "CANCELLED");
    const { violations, sample } = await disagreements();
    expect([violations, sample.length]).toEqual([12_000, 10]);
  });

  it("finds the first and the last order of each window if they have no reservation", async () => {
    const ids = await insertOrders(2 * WINDOW, "CONFIRMED");
    const without = [0, WINDOW - 1, WINDOW, 2 * WINDOW - 1].map((n) => ids[n]!);
    await reserve(ids.filter((id) => !without.includes(id)));
    expect(await disagreements()).toEqual(named(without, "CONFIRMED, its reservation none"));
  });
});
