import fc from "fast-check";
import { ServiceBroker, type Context, type ServiceSchema } from "moleculer";
import { Client } from "pg";
import { loadConfig } from "../../../config";
import { digestOf } from "../../../contracts/lines";
import { compareIds } from "../../../contracts/contract";
import type { CreatedOrder, Line as OrderLine } from "../../../contracts/orders";
import type { Outcome, Refusal } from "../../../contracts/products";
import type { Database } from "../../../mixins/database";
import type { WithDatabase } from "../../../mixins/database.mixin";
import { brokerOptions } from "../../../moleculer.config";
import { auditProducts } from "../../../services/products/audit.store";
import products from "../../../services/products/products.service";
import { adjustStock, insertProduct } from "../../../services/products/products.store";
import { releaseStock, reserveStock } from "../../../services/products/reservations.store";
import { reserve } from "../../../services/products/stock";
import { FlakyProxy } from "../../../testkit/flaky-proxy";
import { until } from "../../../testkit/until";
import { testId } from "../../../testkit/ids";
import { createDatabase } from "../../../testkit/postgres";
import { uniqueNamespace } from "../../../testkit/shop";

/** Starts the products service alone on its own database; `sent` collects the replies that an orders service would get. */
async function startProducts(url: string) {
  const config = loadConfig({ NAMESPACE: uniqueNamespace(), LOG_LEVEL: "fatal", PRODUCTS_DATABASE_URL: url });
  const broker = new ServiceBroker(brokerOptions(config));
  const sent: { settled: Outcome[]; refused: Refusal[] } = { settled: [], refused: [] };
  broker.createService(products(broker, config) as unknown as ServiceSchema);
  broker.createService({
    name: "orders",
    events: {
      "stock.settled": (ctx: Context<{ orders: Outcome[] }>) => void sent.settled.push(...ctx.params.orders),
      "stock.refused": (ctx: Context<{ orders: Refusal[] }>) => void sent.refused.push(...ctx.params.orders),
    },
  });
  await broker.start();
  return { broker, sent, db: (broker.getLocalService("products") as unknown as WithDatabase).db };
}

let lastOrder = 0;
const newId = (): string => testId(++lastOrder);
const newOrder = (...lines: OrderLine[]): CreatedOrder => ({ order_id: newId(), lines });
const line = (product_id: string, quantity: number): OrderLine => ({ product_id, quantity });
const UNKNOWN = testId(999_999);

let database: Awaited<ReturnType<typeof createDatabase>>;
let node: Awaited<ReturnType<typeof startProducts>>;
let db: Database;
beforeAll(async () => {
  database = await createDatabase("products");
  node = await startProducts(database.url);
  db = node.db;
});
afterAll(async () => {
  await node.broker.stop();
  await database.drop();
});
beforeEach(() => Object.assign(node.sent, { settled: [], refused: [] }));

const newProduct = async (quantity: number, on = db): Promise<string> =>
  (await insertProduct(on.query, { name: "Lamp", price: 1, quantity }, testId(1))).id;
const archive = (id: string) => db.query("update products set archived_at = now() where id = $1", [id]);
const quantityOf = async (id: string): Promise<number> =>
  (await db.query<{ quantity: number }>("select quantity from products where id = $1", [id]))[0]!.quantity;
const everything = () =>
  db.query(`select (select jsonb_agg(p order by id) from products p) as products,
    (select jsonb_agg(r order by order_id) from reservations r) as reservations, (select jsonb_agg(m order by id) from stock_movements m) as ledger`);
const byOrder = (outcomes: readonly Outcome[]) => [...outcomes].sort((a, b) => compareIds(a.order_id, b.order_id));
const soundAudit = async () => expect((await auditProducts(db)).filter((check) => !check.ok)).toEqual([]);

/** Checks quantities, held units and the ledger's running balance against the rows from which they are computed. */
async function stockAddsUp(ids: string[]): Promise<void> {
  const rows = await db.query<{ quantity: number; reserved: number; booked: number; held: number }>(
    `select p.quantity, p.reserved, coalesce((select sum(delta) from stock_movements m where m.product_id = p.id), 0)::bigint as booked,
       coalesce((select sum(l.quantity) from reservations r cross join jsonb_to_recordset(r.lines) as l (product_id uuid, quantity bigint)
         where r.state = 'RESERVED' and l.product_id = p.id), 0)::bigint as held
     from products p where p.id = any($1)`,
    [ids],
  );
  expect(rows).toHaveLength(ids.length);
  for (const { quantity, reserved, booked, held } of rows) {
    expect({ quantity, reserved }).toEqual({ quantity: booked, reserved: held });
    expect(quantity).toBeGreaterThanOrEqual(0);
  }
  const totals =
    "select balance, sum(delta) over (partition by product_id order by id) as total from stock_movements where product_id = any($1)";
  expect(await db.query(`select * from (${totals}) as m where balance <> total`, [ids])).toEqual([]);
  await soundAudit();
}

const ORDERS = 8;
/** Lines name products by index: three available, one that may be archived, and an unknown one. */
const requestedLines = fc.uniqueArray(
  fc.record({
    product: fc.oneof({ weight: 9, arbitrary: fc.nat(3) }, { weight: 1, arbitrary: fc.constant(4) }),
    quantity: fc.integer({ min: 1, max: 4 }),
  }),
  { minLength: 1, maxLength: 4, selector: (l) => l.product },
);
const requestedOrders = fc.array(requestedLines, { minLength: ORDERS, maxLength: ORDERS });
const stock = fc.array(fc.nat(8), { minLength: 4, maxLength: 4 });
const someOrders = fc.array(fc.nat(ORDERS - 1), { minLength: 1, maxLength: 6 });
const delta = fc.integer({ min: -4, max: 4 }).filter((units) => units !== 0);
const operation = fc.oneof(
  { weight: 5, arbitrary: fc.record({ what: fc.constant("reserve" as const), orders: someOrders }) },
  { weight: 3, arbitrary: fc.record({ what: fc.constant("release" as const), orders: someOrders }) },
  { weight: 1, arbitrary: fc.record({ what: fc.constant("adjust" as const), product: fc.nat(3), delta }) },
  { weight: 1, arbitrary: fc.record({ what: fc.constant("archive" as const) }) },
);

async function shop(quantities: number[], wanted: { product: number; quantity: number }[][]) {
  const ids = await Promise.all(quantities.map((quantity) => newProduct(quantity)));
  const orders = wanted.map((lines) => newOrder(...lines.map((l) => line(ids[l.product] ?? UNKNOWN, l.quantity))));
  return { ids, orders };
}

describe("concurrent batches in the database", () => {
  it("concurrent reserves, cancels, repeats and adjustments: stock adds up, and each order has one outcome, the same on every repeat", async () => {
    const waves = fc.array(fc.array(operation, { minLength: 1, maxLength: 8 }), { minLength: 1, maxLength: 4 });
    await fc.assert(
      fc.asyncProperty(stock, requestedOrders, waves, async (quantities, wanted, all) => {
        const { ids, orders } = await shop(quantities, wanted);
        const perform = (op: (typeof all)[number][number]): Promise<unknown> => {
          if (op.what === "reserve") return reserveStock(db, op.orders.map((i) => orders[i]!)); // prettier-ignore
          if (op.what === "release") return releaseStock(db, op.orders.map((i) => orders[i]!.order_id)); // prettier-ignore
          return op.what === "adjust"
            ? adjustStock(db.query, { id: ids[op.product]!, tags: undefined, delta: op.delta, reason: "counted", max: 1e9 })
            : archive(ids[3]!);
        };
        const sent = new Map<string, Set<Outcome["outcome"]>>();
        for (const wave of all) {
          const results = await Promise.all(wave.map(perform)); // an error that escapes fails the run
          const before = new Map([...sent].map(([id, outcomes]) => [id, new Set(outcomes)]));
          wave.forEach((op, i) => {
            if (!("orders" in op)) return;
            const outcomes = results[i] as Outcome[];
            const asked = [...new Set(op.orders.map((o) => orders[o]!.order_id))].sort();
            expect(byOrder(outcomes).map((o) => o.order_id)).toEqual(asked);
            for (const { order_id, outcome } of outcomes) {
              if (op.what === "release") expect(outcome).not.toBe("RESERVED");
              // RELEASED and REJECTED from an earlier wave are final.
              for (const final of ["RELEASED", "REJECTED"] as const) if (before.get(order_id)?.has(final)) expect(outcome).toBe(final);
              sent.set(order_id, (sent.get(order_id) ?? new Set()).add(outcome));
            }
          });
        }
        for (const outcomes of sent.values()) if (outcomes.has("REJECTED")) expect([...outcomes]).toEqual(["REJECTED"]);
        await stockAddsUp(ids);

        const known = orders.filter((o) => sent.has(o.order_id));
        const at = await everything();
        const repeats = await Promise.all([1, 2].map(() => reserveStock(db, known)));
        const asked = known.map((o) => o.order_id);
        const stored = await db.query("select state from reservations where order_id = any($1) order by order_id", [asked]);
        for (const repeat of repeats) expect(byOrder(repeat).map((o) => ({ state: o.outcome }))).toEqual(stored);
        expect(await everything()).toEqual(at);
        await releaseStock(db, orders.map((o) => o.order_id)); // prettier-ignore
        await stockAddsUp(ids);
        expect(await db.query("select id from products where id = any($1) and reserved <> 0", [ids])).toEqual([]);
      }),
      { numRuns: 30, endOnFailure: true },
    );
  });

  it("a batch is decided like the pure decision, order by order as they arrived, and like batches of one", async () => {
    await fc.assert(
      fc.asyncProperty(
        stock,
        requestedOrders,
        fc.shuffledSubarray([...Array(ORDERS).keys()], { minLength: ORDERS }),
        async (quantities, wanted, arrival) => {
          const [together, alone] = [await shop(quantities, wanted), await shop(quantities, wanted)];
          const batch = arrival.map((i) => together.orders[i]!);
          const outcomes = byOrder(await reserveStock(db, batch));
          expect(outcomes).toEqual(byOrder(reserve(batch, new Map(together.ids.map((id, i) => [id, quantities[i]!]))).outcomes));
          const one: Outcome[] = [];
          for (const i of arrival) one.push(...(await reserveStock(db, [alone.orders[i]!])));
          expect(byOrder(one).map((o) => o.outcome)).toEqual(outcomes.map((o) => o.outcome));
        },
      ),
      { numRuns: 20, endOnFailure: true },
    );
  });

  it("a release of more lines than one transaction may have releases the first orders, at least one, and no others", async () => {
    const ids = await Promise.all(Array.from({ length: 5 }, () => newProduct(10)));
    const orders = Array.from({ length: 3 }, () => newOrder(...ids.slice(0, 2).map((id) => line(id, 1))));
    const large = newOrder(...ids.map((id) => line(id, 1)));
    await reserveStock(db, [...orders, large]);
    const asked = [...orders, large].map((o) => o.order_id);
    const released = async (from: number): Promise<string[]> => (await releaseStock(db, asked.slice(from), 4)).map((o) => o.order_id);
    expect(await released(0)).toEqual(asked.slice(0, 2));
    expect(await db.query("select order_id from reservations where order_id = any($1) and state = 'RESERVED' order by 1", [asked])).toEqual(
      asked
        .slice(2)
        .toSorted()
        .map((order_id) => ({ order_id })),
    );
    expect(await released(2)).toEqual(asked.slice(2, 3));
    expect(await released(3)).toEqual(asked.slice(3));
    await stockAddsUp(ids);
  });

  it("batches with the same orders and products in different order: the database has no deadlock, not even one that is retried", async () => {
    const calm = await createDatabase("products");
    const storm = await startProducts(calm.url);
    const ids = await Promise.all(Array.from({ length: 10 }, () => newProduct(1_000_000, storm.db)));
    const batches: PromiseSettledResult<Outcome[]>[] = [];
    for (let round = 0; round < 8; round++) {
      const fresh = (n: number) =>
        Array.from({ length: n }, (_, i) => newOrder(...(i % 2 ? ids : ids.toReversed()).map((id) => line(id, 1))));
      const shared = fresh(200);
      const cancels = shared.filter((_, i) => i % 3 === 0).map((o) => o.order_id);
      const own = [fresh(2), fresh(3).slice(1)].map((batch) => reserveStock(storm.db, batch));
      const same = [shared, shared.toReversed()].map((batch) => reserveStock(storm.db, batch));
      const back = [cancels, cancels.toReversed()].map((batch) => releaseStock(storm.db, batch));
      batches.push(...(await Promise.allSettled([...own, ...same, ...back])));
    }
    const checks = await auditProducts(storm.db);
    await storm.broker.stop();
    const client = new Client({ connectionString: calm.url });
    await client.connect();
    // A session reports its statistics when it ends.
    const sessions = "select from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()";
    await until("all sessions have ended", async () => (await client.query(sessions)).rowCount === 0);
    const { rows } = await client.query("select deadlocks from pg_stat_database where datname = current_database()");
    await client.end();
    await calm.drop();
    expect(rows).toEqual([{ deadlocks: 0 }]);
    expect(batches.filter((batch) => batch.status === "rejected")).toEqual([]);
    expect(checks.filter((check) => !check.ok)).toEqual([]);
  });
});

const created = (orders: object[]) => node.broker.emit("order.created", { orders });
const cancelled = (...orders: CreatedOrder[]) =>
  node.broker.emit("order.cancelled", { orders: orders.map(({ order_id }) => ({ order_id })) });
const ROWS = "select state, lines, (select count(*) from stock_movements m where m.order_id = r.order_id) as movements from reservations r";
const rowsOf = (order: CreatedOrder) => db.query(`${ROWS} where order_id = $1`, [order.order_id]);

describe("the events of the products service", () => {
  it("one order.created that arrives 100 times at once reserves stock once, and gets the reply RESERVED each time", async () => {
    const id = await newProduct(50);
    const order = newOrder(line(id, 3));
    await Promise.all(Array.from({ length: 100 }, () => created([order])));
    expect(await rowsOf(order)).toEqual([{ state: "RESERVED", lines: order.lines, movements: 1 }]);
    expect(await quantityOf(id)).toBe(47);
    expect(node.sent.refused).toEqual([]);
    expect(node.sent.settled.length).toBeGreaterThan(0);
    expect(new Set(node.sent.settled.map((o) => JSON.stringify(o)))).toEqual(
      new Set([JSON.stringify({ order_id: order.order_id, outcome: "RESERVED", lines_digest: digestOf(order.lines) })]),
    );
    await soundAudit();
  });

  it("an order that arrives 300 more times while it waits for its turn is reserved by one transaction, with a reply each time", async () => {
    const id = await newProduct(10);
    const [first, second, order] = [newOrder(line(id, 1)), newOrder(line(id, 1)), newOrder(line(id, 1))];
    const transactions = jest.spyOn(db, "transaction");
    let done: Promise<unknown> = Promise.resolve();
    await db.transaction(async (query) => {
      await query("select from products where id = $1 for update", [id]);
      const inFlight: Promise<unknown>[] = [];
      for (const [i, one] of [first, second].entries()) {
        inFlight.push(created([one]));
        await until("the order is being reserved", () => transactions.mock.calls.length === i + 2);
      }
      inFlight.push(...Array.from({ length: 300 }, () => created([order])));
      done = Promise.all(inFlight);
    });
    await done;
    expect(transactions).toHaveBeenCalledTimes(4);
    transactions.mockRestore();
    expect(node.sent.settled.filter(({ order_id }) => order_id === order.order_id)).toHaveLength(300);
    expect(await quantityOf(id)).toBe(7);
  });

  it("200 orders in 25 events want the last unit: one gets it, 199 are rejected with none left", async () => {
    const id = await newProduct(1);
    const all = Array.from({ length: 200 }, () => newOrder(line(id, 1)));
    await Promise.all(Array.from({ length: 25 }, (_, i) => created(all.slice(i * 8, i * 8 + 8))));
    await created(all.slice(0, 128));
    await created(all.slice(128));
    const outcomes = new Map(node.sent.settled.map((o) => [o.order_id, o]));
    expect(outcomes.size).toBe(200);
    const rejected = [...outcomes.values()].flatMap((o) => (o.outcome === "REJECTED" ? o.shortages : []));
    expect(rejected).toEqual(Array.from({ length: 199 }, () => ({ product_id: id, wanted: 1, available: 0 })));
    expect([...outcomes.values()].filter((o) => o.outcome === "RESERVED")).toHaveLength(1);
    await stockAddsUp([id]);
  });

  it("a cancel that arrives before its order leaves a tombstone: the late order reserves nothing and gets RELEASED", async () => {
    const id = await newProduct(5);
    const order = newOrder(line(id, 2));
    await cancelled(order);
    expect(await rowsOf(order)).toEqual([{ state: "RELEASED", lines: [], movements: 0 }]);
    await created([order]);
    expect(await rowsOf(order)).toEqual([{ state: "RELEASED", lines: [], movements: 0 }]);
    expect(await quantityOf(id)).toBe(5);
    expect(node.sent.settled.map((o) => o.outcome)).toEqual(["RELEASED", "RELEASED"]);
  });

  it("a cancel of a rejected order changes nothing and gets the rejection again, with its shortages", async () => {
    const id = await newProduct(1);
    const order = newOrder(line(id, 2));
    await created([order]);
    const at = await everything();
    await cancelled(order, order);
    const rejected = {
      order_id: order.order_id,
      outcome: "REJECTED",
      lines_digest: digestOf(order.lines),
      shortages: [{ product_id: id, wanted: 2, available: 1 }],
    };
    expect(node.sent.settled).toEqual([rejected, rejected]);
    expect(await everything()).toEqual(at);
  });

  it("an archived product is a shortage for a new order, and still gets back the units of an old order", async () => {
    const id = await newProduct(9);
    const [old, late] = [newOrder(line(id, 4)), newOrder(line(id, 1))];
    await created([old]);
    await archive(id);
    await created([late]);
    await cancelled(old);
    expect(node.sent.settled[1]).toEqual({
      order_id: late.order_id,
      outcome: "REJECTED",
      lines_digest: digestOf(late.lines),
      shortages: [{ product_id: id, wanted: 1, available: null }],
    });
    expect(await quantityOf(id)).toBe(9);
    await stockAddsUp([id]);
  });

  it("invalid orders among valid ones are refused permanently, each with its reason, and delay no other", async () => {
    const id = await newProduct(10);
    const [first, last] = [newOrder(line(id, 1)), newOrder(line(id, 2))];
    const broken = [
      { lines: [] },
      {},
      { lines: [line(id, 0)] },
      { lines: [line(id, 1)], coupon: "X" },
      { lines: [{ product_id: id, quantity: "1" }] },
      { lines: [{ product_id: 1, quantity: 1 }] },
    ];
    const wrong = broken.map((rest) => ({ ...rest, order_id: newId() }));
    await created([wrong[0]!, first, ...wrong.slice(1), last]);
    expect(node.sent.settled).toEqual(
      [first, last].map(({ order_id, lines }) => ({ order_id, outcome: "RESERVED", lines_digest: digestOf(lines) })),
    );
    expect(node.sent.refused.map(({ message: _message, ...rest }) => rest)).toEqual(
      wrong.map(({ order_id }) => ({ order_id, event: "order.created", permanent: true })),
    );
    const fields = [
      /^lines /,
      /^lines is required/,
      /^lines\[0\]\.quantity /,
      /^coupon is not a known/,
      /^lines\[0\]\.quantity /,
      /^lines\[0\]\.product_id must be a UUID/,
    ];
    expect(node.sent.refused.map(({ message }) => message)).toEqual(fields.map((field) => expect.stringMatching(field) as string));
    expect(await quantityOf(id)).toBe(7);
  });

  it("an order that only the database refuses is refused alone and not permanently; the others of its event settle", async () => {
    const id = await newProduct(10);
    const [first, twice, last] = [newOrder(line(id, 1)), newOrder(line(id, 1), line(id, 1)), newOrder(line(id, 2))];
    await created([first, twice, last]);
    expect(node.sent.settled).toEqual(
      [first, last].map(({ order_id, lines }) => ({ order_id, outcome: "RESERVED", lines_digest: digestOf(lines) })),
    );
    expect(node.sent.refused).toMatchObject([{ order_id: twice.order_id, event: "order.created", permanent: false }]);
    expect(await rowsOf(twice)).toEqual([]);
    await stockAddsUp([id]);
  });
});

describe("fifty orders of a hundred lines", () => {
  /** In locking order. */
  let ids: string[];
  let heavy: CreatedOrder[];
  beforeAll(async () => {
    ids = (await Promise.all(Array.from({ length: 100 }, () => newProduct(1_000)))).sort();
  });
  beforeEach(() => {
    heavy = Array.from({ length: 50 }, () => ({ ...newOrder(...ids.map((id) => line(id, 1))), user_id: testId(1) }));
  });
  /** The movements per transaction, oldest first. */
  const transactions = (kind: "RESERVE" | "RELEASE", orders: CreatedOrder[]) =>
    db.query<{ orders: string[]; lines: number }>(
      `select json_agg(distinct order_id) as orders, count(*) as lines from stock_movements
       where kind = $1 and order_id = any($2) group by xmin::text order by min(id)`,
      [kind, orders.map(({ order_id }) => order_id)],
    );

  it("are reserved and released by transactions of at most a thousand lines", async () => {
    await created(heavy);
    await cancelled(...heavy);
    for (const kind of ["RESERVE", "RELEASE"] as const) {
      const written = await transactions(kind, heavy);
      expect(Math.max(...written.map(({ lines }) => lines))).toBeLessThanOrEqual(1_000);
      expect(written.reduce((sum, { lines }) => sum + lines, 0)).toBe(5_000);
    }
    await stockAddsUp(ids);
  });

  /** @param meanwhile runs while the first orders wait for a locked product */
  async function whileLocked(meanwhile: () => Promise<unknown>): Promise<void> {
    const other = new Client({ connectionString: database.url });
    await other.connect();
    let emitted: Promise<unknown> | undefined;
    try {
      await other.query("begin");
      await other.query("select from products where id = $1 for update", [ids[0]]);
      emitted = created(heavy);
      const waiting = "select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
      await until("a batch waits for the product", async () => (await db.query(waiting)).length === 1);
      await meanwhile();
    } finally {
      await other.end(); // also releases the lock
    }
    await emitted;
  }

  it("of one buyer are waiting: another buyer's large order is reserved with the next of them", async () => {
    const large = { ...newOrder(...ids.slice(0, 9).map((id) => line(id, 1))), user_id: testId(2) };
    const emitted: Promise<unknown>[] = [];
    await whileLocked(() => Promise.resolve(emitted.push(created([large]))));
    await Promise.all(emitted);
    const written = await transactions("RESERVE", [...heavy, large]);
    expect(written.findIndex(({ orders }) => orders.includes(large.order_id))).toBeLessThanOrEqual(1);
    expect(written.length).toBeGreaterThanOrEqual(5);
  });

  it("arrived in separate events: another buyer's large order that came last is not reserved last", async () => {
    const hundred = [...heavy, ...heavy.map(({ lines }) => ({ ...newOrder(...lines), user_id: testId(1) }))];
    const large = { ...newOrder(...ids.slice(0, 9).map((id) => line(id, 1))), user_id: testId(2) };
    heavy = hundred.splice(0, 1);
    const emitted: Promise<unknown>[] = [];
    await whileLocked(() => Promise.resolve(emitted.push(...[...hundred, large].map((order) => created([order])))));
    await Promise.all(emitted);
    expect(node.sent.settled.findIndex(({ order_id }) => order_id === large.order_id)).toBeLessThan(50);
  });

  it("are waiting for a product: orders of eight lines are reserved meanwhile", async () => {
    const small = { ...newOrder(...ids.slice(1, 9).map((id) => line(id, 1))), user_id: testId(2) };
    await whileLocked(async () => {
      await created([small]);
      expect(node.sent.settled.map(({ order_id }) => order_id)).toEqual([small.order_id]);
    });
  });
});

describe("an unavailable database", () => {
  let away: FlakyProxy;
  let remote: Awaited<ReturnType<typeof startProducts>>;
  let id: string;
  beforeAll(async () => {
    away = await FlakyProxy.to(database.url);
    remote = await startProducts(away.url);
    id = await newProduct(10);
  });
  afterAll(async () => {
    away.cut(); // a hanging connection would keep the pool from closing
    await remote.broker.stop();
    await away.close();
  });

  it.each([
    ["refuses connections", () => away.refuse()],
    ["hangs, so that its responses never arrive", () => away.freeze()],
  ])(
    "%s: only an invalid order is refused, since an outage is no refusal; afterwards the repeated event gets its reply",
    async (_how, fail) => {
      const order = newOrder(line(id, 1));
      Object.assign(remote.sent, { settled: [], refused: [] });
      await remote.broker.emit("order.cancelled", { orders: [{ order_id: newId() }] }); // opens a connection
      expect(remote.sent.settled).toHaveLength(1);
      Object.assign(remote.sent, { settled: [], refused: [] });
      fail();
      const broken = { order_id: newId() };
      await remote.broker.emit("order.created", { orders: [order, broken] });
      expect(remote.sent).toEqual({ settled: [], refused: [expect.objectContaining({ ...broken, permanent: true })] });
      Object.assign(remote.sent, { settled: [], refused: [] });
      away.cut();
      away.restore();
      await until("the order is settled", async () => {
        await remote.broker.emit("order.created", { orders: [order] });
        return remote.sent.settled.length > 0;
      });
      expect(remote.sent).toEqual({
        settled: [{ order_id: order.order_id, outcome: "RESERVED", lines_digest: digestOf(order.lines) }],
        refused: [],
      });
    },
  );
});

it("products that sell out, are available again or are archived are listed accordingly, and the audit finds one that is not", async () => {
  const [none, few, gone] = [await newProduct(0), await newProduct(1), await newProduct(0)];
  const listed = async () =>
    (await db.query<{ product_id: string }>("select product_id from sold_out_products")).map((row) => row.product_id);
  const change = (id: string, quantity: number) => db.query("update products set quantity = $2 where id = $1", [id, quantity]);
  await archive(gone);
  expect(await listed()).toEqual(expect.arrayContaining([none]));
  await change(few, 0);
  expect(await listed()).toEqual(expect.arrayContaining([none, few]));
  await change(few, 1);
  for (const id of [few, gone]) expect(await listed()).not.toContain(id);
  await db.query("delete from sold_out_products where product_id = $1", [none]);
  const found = (await auditProducts(db)).find(({ name }) => name === "sold_out_products lists exactly the products that are sold out");
  expect(found).toMatchObject({ ok: false, violations: 1 });
  await db.query("insert into sold_out_products (product_id) values ($1)", [none]);
});
