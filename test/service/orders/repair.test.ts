import { execFile } from "node:child_process";
import { promisify } from "node:util";
import type { ServiceBroker } from "moleculer";
import { Client as Postgres } from "pg";
import { asSystem, call } from "../../../broker/contract";
import { MAX_ID, NIL_ID } from "../../../contracts/contract";
import { audit, repair } from "../../../contracts/orders";
import { reservations } from "../../../contracts/products";
import type { Database } from "../../../mixins/database";
import { COMMANDS } from "../../../scripts/commands";
import { compare, differences, type ProductsSide } from "../../../services/orders/audit";
import { variablesOf } from "../../../testkit/databases";
import { ROOT } from "../../../testkit/repository";
import { until } from "../../../testkit/until";
import type { Client } from "../../../testkit/client";
import { ADMIN } from "../../../testkit/admin";
import { startShop, type Shop } from "../../../testkit/shop";

let shop: Shop, broker: ServiceBroker, book: Postgres, stock: Postgres, admin: Client, buyer: Client;

beforeAll(async () => {
  shop = await startShop();
  broker = shop.nodes[0]!;
  [book, stock] = [new Postgres(shop.databases.orders.url), new Postgres(shop.databases.products.url)];
  await Promise.all([book.connect(), stock.connect()]);
  admin = await shop.client().login(ADMIN.email, ADMIN.password);
  buyer = shop.client();
  await buyer.signUp();
});
afterAll(async () => {
  await Promise.all([book.end(), stock.end()]);
  await shop.stop();
});

/** Creates a decided order for three units of a product with ten. */
async function ordered(status: "CONFIRMED" | "REJECTED" | "CANCELLED"): Promise<{ id: string; product: string }> {
  const product = await admin.createProduct({ quantity: 10 });
  if (status === "REJECTED") {
    const id = String((await buyer.order(product, 3)).body["id"]);
    await buyer.decided(id);
    // Set by SQL, since the shop would refuse a short order before accepting it.
    await book.query("update orders set status = 'REJECTED' where id = $1", [id]);
    await book.query("update order_history set status = 'REJECTED' where order_id = $1 and status = 'CONFIRMED'", [id]);
    await forget(id, product);
    return { id, product };
  }
  const id = String((await buyer.order(product, 3)).body["id"]);
  expect(await buyer.decided(id)).toMatchObject({ status: "CONFIRMED" });
  if (status === "CANCELLED") {
    await buyer.post(`/orders/${id}/cancel`);
    await settled();
  }
  return { id, product };
}

/** Deletes an order's data from product_db, as after a restored backup. */
async function forget(id: string, product: string): Promise<void> {
  await stock.query("delete from stock_movements where order_id = $1", [id]);
  await stock.query("delete from reservations where order_id = $1", [id]);
  await stock.query("update products set quantity = 10, reserved = 0 where id = $1", [product]);
}

/** Deletes the order's data from order_db. */
async function lose(...ids: string[]): Promise<void> {
  await book.query("delete from outbox where subject = any($1)", [ids]);
  for (const table of ["order_lines", "order_history"]) await book.query(`delete from ${table} where order_id = any($1)`, [ids]);
  await book.query("delete from orders where id = any($1)", [ids]);
}

const ask = (apply: boolean) => call(broker, repair, { apply }, asSystem());
const report = () => call(broker, audit, {}, asSystem());
const settled = () => until("nothing is in flight", async () => (await report()).in_flight === 0);
const clean = async () => {
  await settled();
  expect((await report()).checks.filter(({ ok }) => !ok)).toEqual([]);
};
const quantity = (product: string) => admin.quantityOf(product);
const nothing = { repairs: [], decisions: [], undecided: 0, more: false };

describe("a repair", () => {
  afterEach(async () => {
    await clean();
    expect(await ask(false)).toEqual({ applied: false, ...nothing });
  });

  it("finds nothing to do in a consistent shop", async () => {
    await Promise.all([ordered("CONFIRMED"), ordered("CANCELLED")]);
    expect(await ask(true)).toEqual({ applied: true, ...nothing });
  });

  it("publishes a confirmed order again if products has lost its reservation; without apply it changes nothing", async () => {
    const { id, product } = await ordered("CONFIRMED");
    await forget(id, product);
    const repairs = [{ order_id: id, action: "order.created", what: "CONFIRMED, its reservation none" }];
    expect(await ask(false)).toEqual({ ...nothing, applied: false, repairs });
    await settled();
    expect(await quantity(product)).toBe(10);
    expect(await ask(true)).toEqual({ ...nothing, applied: true, repairs });
    await clean();
    expect(await quantity(product)).toBe(7);
    const { headers, body } = await buyer.get(`/orders/${id}`);
    expect([body["status"], headers.get("etag")]).toEqual(["CONFIRMED", '"2"']); // unchanged
  });

  it("does the same if its settled outbox row was deleted long ago", async () => {
    const { id, product } = await ordered("CONFIRMED");
    await forget(id, product);
    await book.query("delete from outbox where subject = $1", [id]);
    expect((await ask(true)).repairs).toHaveLength(1);
    await clean();
    expect(await quantity(product)).toBe(7);
  });

  it("releases the stock of a cancelled order again if products has lost the release", async () => {
    const { id, product } = await ordered("CANCELLED");
    await stock.query("delete from stock_movements where order_id = $1 and kind = 'RELEASE'", [id]);
    await stock.query("update reservations set state = 'RESERVED' where order_id = $1", [id]);
    await stock.query("update products set quantity = 7, reserved = 3 where id = $1", [product]);
    expect((await ask(true)).repairs).toEqual([{ order_id: id, action: "order.cancelled", what: "CANCELLED, its reservation RESERVED" }]);
    await clean();
    expect(await quantity(product)).toBe(10);
  });

  it("leaves a tombstone for a rejected order that products has lost, so that a late event reserves nothing", async () => {
    const { id, product } = await ordered("REJECTED");
    expect((await ask(true)).repairs).toEqual([{ order_id: id, action: "release", what: "REJECTED, its reservation none" }]);
    expect((await stock.query("select state, lines from reservations where order_id = $1", [id])).rows).toEqual([
      { state: "RELEASED", lines: [] },
    ]);
    expect(await quantity(product)).toBe(10);
  });

  it("releases the stock of orders that order_db has lost, a hundred at a time; their reservations stay, without stock", async () => {
    const product = await admin.createProduct({ quantity: 500 });
    const ids = await Promise.all(Array.from({ length: 120 }, async () => String((await buyer.order(product, 1)).body["id"])));
    for (const id of ids) await buyer.decided(id);
    await settled();
    await lose(...ids);
    const first = await ask(true);
    expect([first.repairs.length, first.more]).toEqual([100, true]);
    expect(new Set(first.repairs.map(({ what }) => what))).toEqual(new Set(["a reservation (RESERVED) without an order"]));
    const second = await ask(true);
    expect([second.repairs.length, second.more]).toEqual([20, false]);
    expect(await quantity(product)).toBe(500);
    const { rows } = await stock.query("select state from reservations where order_id = any($1) group by state", [ids]);
    expect(rows).toEqual([{ state: "RELEASED" }]);
  });

  it("never mistakes an order that is being created for a lost one", async () => {
    const product = await admin.createProduct({ quantity: 500 });
    const state = { isOver: false };
    const buying = Promise.all(
      Array.from({ length: 8 }, async () => {
        const ids: string[] = [];
        while (!state.isOver) ids.push(String((await buyer.order(product, 1)).body["id"]));
        return ids;
      }),
    );
    for (let n = 0; n < 10; n++) expect(await ask(true)).toEqual({ applied: true, ...nothing });
    state.isOver = true;
    for (const id of (await buying).flat()) expect(await buyer.decided(id)).toMatchObject({ status: "CONFIRMED" });
  });

  it("reads the reservations before the orders, so that an order placed and reserved in between is no difference", async () => {
    const { db } = broker.getLocalService("orders") as unknown as { db: Database };
    const products: ProductsSide = {
      audit: () => Promise.resolve([]),
      reservations: async (after, upto) => {
        await ordered("CONFIRMED");
        return call(broker, reservations, { after, upto }, asSystem());
      },
    };
    expect(await compare(db, products, NIL_ID, MAX_ID)).toEqual({ upto: MAX_ID, differences: [] });
  });

  it("begins with the newest orders, which are most likely lost, and compares each once", async () => {
    const { db } = broker.getLocalService("orders") as unknown as { db: Database };
    const older = "select md5(n::text)::uuid, n::text, '', '', 0, 'CONFIRMED' from generate_series(1, 4500) as n";
    await book.query(`insert into orders (user_id, idempotency_key, request_hash, lines_digest, total_cents, status) ${older}`);
    try {
      const { id } = await ordered("CONFIRMED");
      await settled();
      const knowingNothing: ProductsSide = {
        audit: () => Promise.resolve([]),
        reservations: () => Promise.resolve({ items: [], next: null }),
      };
      const windows: string[][] = [];
      for await (const window of differences(db, knowingNothing)) windows.push(window);
      expect(windows[0]?.includes(id)).toBe(true);
      const { rows } = await book.query<{ id: string }>("select id from orders where status in ('CONFIRMED', 'REJECTED') order by id");
      expect(windows.flat().sort()).toEqual(rows.map((row) => row.id));
    } finally {
      await book.query("delete from orders where request_hash = ''");
    }
  });

  it("is only for admins, who are named in the audit log with each order", async () => {
    const { id } = await ordered("CONFIRMED");
    await lose(id);
    expect((await buyer.post("/admin/repair", { apply: true })).status).toBe(403);
    expect((await admin.post("/admin/repair", {})).body).toMatchObject({ applied: false, repairs: [{ order_id: id }] });
    expect((await admin.post("/admin/repair", { apply: true })).body).toMatchObject({ applied: true, repairs: [{ order_id: id }] });
    const { items } = (await admin.get(`/admin/audit-log?action=order.repaired&subject=${id}`)).body;
    expect(items).toMatchObject([{ actor: (await admin.get("/me")).body["id"], subject: id }]);
  });

  it("can be made in the console: a dry run, and with --apply the repair", async () => {
    const { id } = await ordered("CONFIRMED");
    await lose(id);
    const command = COMMANDS.find((one) => one.command === "repair")!;
    const print = jest.spyOn(console, "log").mockImplementation(() => undefined);
    const type = async (options: object) => {
      print.mockClear();
      const run = command.action as unknown as (broker: ServiceBroker, input: object, helpers: object) => Promise<void>;
      await run(broker, { options }, { table: (rows: string[][]) => rows.map((row) => row.join(" | ")).join("\n") });
      return String(print.mock.calls.flat()[0]);
    };
    try {
      expect(await type({})).toBe(`order | to do | why\n${id} | release | a reservation (RESERVED) without an order`);
      expect(await type({ apply: true })).toBe(`order | done | why\n${id} | release | a reservation (RESERVED) without an order`);
      expect(await type({})).toBe("Nothing differs.");
    } finally {
      print.mockRestore();
    }
  });
});

describe("a difference that needs a manual decision", () => {
  it("is a confirmed order whose stock is gone: it is published again, stays confirmed and is listed", async () => {
    const { id, product } = await ordered("CONFIRMED");
    await forget(id, product);
    await admin.post(`/products/${product}/stock`, { delta: -9 });
    expect((await ask(true)).repairs).toHaveLength(1);
    await settled();
    const decisions = [{ order_id: id, what: "CONFIRMED, its reservation REJECTED" }];
    expect(await ask(true)).toEqual({ ...nothing, applied: true, decisions, undecided: 1 });
    expect((await buyer.get(`/orders/${id}`)).body).toMatchObject({ status: "CONFIRMED" });
    expect(await quantity(product)).toBe(1);
    expect((await report()).ok).toBe(false);
    await buyer.post(`/orders/${id}/cancel`); // the manual decision
    await clean();
  });

  const script = async (...args: string[]) => {
    const env = { PATH: process.env.PATH, BCRYPT_COST: "4", PORT: "0", ...variablesOf(shop.databases) };
    const all = ["--import", "tsx", "scripts/repair.ts", ...args];
    const ended = promisify(execFile)(process.execPath, all, { cwd: ROOT, env, timeout: 60_000 });
    const { code = 0, stdout } = (await ended.catch((error: unknown) => error)) as { code?: number; stdout: string };
    return { code, lines: stdout.trimEnd().split("\n") };
  };

  it("npm run repair prints the repairs, makes them with --apply, and ends with the audit", async () => {
    const { id, product } = await ordered("CONFIRMED");
    await forget(id, product);
    const line = `  order.created    order ${id}: CONFIRMED, its reservation none`;
    const left = "0 differences need a manual decision.";
    expect(await script()).toEqual({ code: 1, lines: [line, `1 repairs would be made by npm run repair -- --apply; ${left}`] });
    expect(await script("--apply")).toEqual({ code: 0, lines: [line, `1 repairs were made; ${left}`, "The audit is clean."] });
    expect(await script()).toEqual({ code: 0, lines: [`0 repairs would be made by npm run repair -- --apply; ${left}`] });
    expect(await quantity(product)).toBe(7);
  }, 120_000);

  it("npm run repair does not wait until no order is in flight, which may never happen", async () => {
    const { id } = await ordered("CONFIRMED");
    await lose(id);
    const product = await admin.createProduct({ quantity: 100_000 });
    const state = { isOver: false };
    const buying = Promise.all(
      Array.from({ length: 16 }, async () => {
        while (!state.isOver) await buyer.order(product, 1);
      }),
    );
    const since = performance.now();
    try {
      expect(await script("--apply")).toMatchObject({ code: 0, lines: expect.arrayContaining(["The audit is clean."]) });
      expect(performance.now() - since).toBeLessThan(30_000);
    } finally {
      state.isOver = true;
      await buying;
    }
  }, 120_000);
});
