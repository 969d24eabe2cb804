import { randomUUID } from "node:crypto";
import type { Context } from "moleculer";
import { digestOf } from "../../../contracts/lines";
import { NIL_ID } from "../../../contracts/contract";
import { orderCreated } from "../../../contracts/orders";
import type { Outcome, Refusal } from "../../../contracts/products";
import type { Database } from "../../../mixins/database";
import type { WithDatabase } from "../../../mixins/database.mixin";
import { claim, probing, steady, type OutboxLimits, type Pace } from "../../../mixins/outbox.claim";
import type { WithOutbox } from "../../../mixins/outbox.mixin";
import { makeDue, watchReplies } from "../../../mixins/outbox.replies";
import { insertOrders } from "../../../services/orders/insert.store";
import { refuseOrders } from "../../../services/orders/outbox.store";
import { settleOrders } from "../../../services/orders/transitions.store";
import { until } from "../../../testkit/until";
import { testId } from "../../../testkit/ids";
import { startShop, type Shop } from "../../../testkit/shop";

type OrdersService = WithDatabase & WithOutbox;

const PRODUCT = testId(1);
const LINES = [{ product_id: PRODUCT, quantity: 1 }];
const EVENTS = ["order.created", "order.cancelled"];
const CREATED = { event: "order.created", large: false };

let shop: Shop;
let db: Database;
async function open(options: Parameters<typeof startShop>[0]): Promise<void> {
  shop = await startShop(options);
  db = (shop.node("orders").getLocalService("orders") as unknown as OrdersService).db;
}
const forget = () =>
  db.query("update outbox set state = 'SETTLED', settled_at = now() - interval '1 day'").then(() => db.query("delete from outbox_events"));

/** When a row was last published and is due again, in seconds from now. */
interface Emission {
  at: number;
  due: number;
}

/** Inserts orders with new rows or, given an emission, with rows that were published four times. @returns the orders' ids, oldest first */
async function rows(n: number, emission?: Emission, user = 1, event = "order.created"): Promise<string[]> {
  const inserted = await db.query<{ subject: string }>(
    `with created as (
       insert into orders (user_id, idempotency_key, request_hash, lines_digest, total_cents)
       select $2, gen_random_uuid(), '-', $3, 100 from generate_series(1, $1) returning id
     ), history as (insert into order_history (order_id, status) select id, 'PENDING' from created)
     insert into outbox (subject, user_id, event, payload, attempts, emitted_at, next_attempt_at)
     select id, $2, $4, $5, $6, now() + $7 * interval '1 s', now() + $8 * interval '1 s' from created order by id returning subject`,
    [n, testId(user), digestOf(LINES), event, JSON.stringify({ lines: LINES }), emission ? 4 : 0, emission?.at ?? null, emission?.due ?? 0],
  );
  return inserted.map((row) => row.subject);
}
const waiting = (n: number, user?: number): Promise<string[]> => rows(n, undefined, user);
const emitted = (n: number, emission: Emission, user?: number, event?: string): Promise<string[]> => rows(n, emission, user, event);

const reserved = (order_id: string): Outcome => ({ order_id, outcome: "RESERVED", lines_digest: digestOf(LINES) });
const refusalOf = (order_id: string): Refusal => ({ order_id, event: "order.created", permanent: false, message: "no" });

const LIMITS: OutboxLimits = { retryMs: 5_000, retryMaxMs: 60_000, maxInFlight: 8, batch: 100 };
const take = async (pace: Pace = steady(LIMITS)): Promise<string[]> =>
  (await claim(db, pace, CREATED, NIL_ID)).rows.map((row) => row.subject);

describe("a claim", () => {
  beforeAll(() => open({ nodes: [["orders"]] }));
  afterAll(() => shop.stop());
  beforeEach(forget);

  it("takes rows that are due later than the maximum back-off, as after a clock that was an hour ahead, and takes them once", async () => {
    const ahead = await emitted(2, { at: 3_590, due: 3_600 });
    await emitted(1, { at: -1, due: 59 });
    expect(await take()).toEqual(ahead);
    expect(await take()).toEqual([]);
  });

  it("takes the usual number of new rows, however many others are in back-off, as they are written or later", async () => {
    for (const user of [1, 2, 3]) await emitted(10, { at: -6, due: 30 }, user);
    const draft = (user: number) => ({
      user_id: testId(user),
      idempotency_key: randomUUID(),
      request_hash: "-",
      total_cents: 1,
      lines: [],
    });
    const room = { maxInFlight: 3, retryMs: 5_000, windowMs: 5_000 };
    expect((await insertOrders(db, [1, 2, 3, 4].map(draft), room)).claimed).toHaveLength(3);
    expect(await take()).toHaveLength(1);
    const others = [...(await waiting(2, 5)), ...(await waiting(2, 6)), ...(await waiting(2, 7))];
    const taken = await take();
    expect(taken).toHaveLength(4); // together with earlier ones, eight are in flight
    expect(others).toEqual(expect.arrayContaining(taken));
    expect(await take()).toEqual([]);
  });

  it("gives overdue rows half of the cap, those longest without a reply first, and new rows the other half", async () => {
    const [later, sooner] = [await emitted(3, { at: -20, due: -1 }, 1), await emitted(3, { at: -30, due: -1 }, 2)];
    const fresh = [...(await waiting(3, 3)), ...(await waiting(3, 4))];
    const taken = await take();
    expect(taken.slice(0, 4).sort()).toEqual([...sooner, later[0]].sort());
    expect(taken).toHaveLength(8);
    expect(fresh).toEqual(expect.arrayContaining(taken.filter((id) => !later.includes(id) && !sooner.includes(id))));
    expect(await claim(db, steady(LIMITS), CREATED, NIL_ID)).toMatchObject({ rows: [], isHeldBack: true });
    await settleOrders(db, sooner.map(reserved));
    expect(await take()).toEqual(later.slice(1));
  });

  it.each([
    ["another buyer", 2],
    ["the same buyer", 1],
  ])(
    "without any reply, takes the row published longest ago and one new row of %s per interval, and postpones neither for long",
    async (_who, user) => {
      const [second, first] = [await emitted(1, { at: -70, due: 50 }), await emitted(1, { at: -80, due: 40 })];
      const fresh = await waiting(3, user);
      const pace = probing(LIMITS, 60_000); // longer than the test takes on any machine
      expect(await take(pace)).toEqual([...first, fresh[0]]);
      expect(await take(pace)).toEqual([]);
      const [row] = await db.query("select max(next_attempt_at - now()) <= '5 s' as soon from outbox where subject = any($1)", [
        [...first, fresh[0]],
      ]);
      expect(row).toEqual({ soon: true });
      await db.query("update outbox set emitted_at = emitted_at - interval '60 s' where state = 'PENDING'");
      expect((await take(pace)).sort()).toEqual([...second, fresh[1]].sort());
    },
  );

  it("takes all rows published before the listeners came back, though they would still be in flight", async () => {
    const lost = await emitted(8, { at: -1, due: 30 });
    expect(await take()).toEqual([]);
    await makeDue(db, EVENTS);
    expect(await take()).toEqual(lost.slice(0, 4));
    expect(await take(steady({ ...LIMITS, maxInFlight: 100 }))).toEqual(lost.slice(4));
    expect(await take(steady({ ...LIMITS, maxInFlight: 100 }))).toEqual([]);
    await db.query("update outbox_events set due_before = now() + interval '1 hour'"); // as written while the clock was ahead
    expect(await take(steady({ ...LIMITS, maxInFlight: 100 }))).toEqual([]);
  });
});

describe("whether replies are missing", () => {
  beforeAll(() => open({ nodes: [["orders"]] }));
  afterAll(() => shop.stop());
  beforeEach(forget);
  const silent = async (patienceMs = 2_500) => [...(await watchReplies(db, EVENTS, { patienceMs, overdueMs: 5_000 }))].sort();
  const settledAt = (ids: string[], at: number) =>
    db.query("update outbox set state = 'SETTLED', settled_at = now() + $2 * interval '1 s' where subject = any($1)", [ids, at]);

  it("is false if nothing was published, or only a moment ago", async () => {
    expect(await silent()).toEqual([]);
    await waiting(3);
    await emitted(1, { at: -2, due: 3 });
    expect(await silent(60_000)).toEqual([]); // a moment ago, however long the test takes
  });

  it("is true if rows published after the last reply are waiting, for each event separately", async () => {
    await settledAt(await emitted(1, { at: -30, due: -25 }), -20);
    await emitted(1, { at: -10, due: 10 });
    await settledAt(await emitted(1, { at: -30, due: -25 }, 1, "order.cancelled"), -5);
    await emitted(1, { at: -10, due: 10 }, 1, "order.cancelled"); // this one doesn't count, since its event had a later reply
    expect(await silent()).toEqual(["order.created"]);
  });

  it("is true even if the database's clock was ahead at the last reply", async () => {
    await settledAt(await emitted(1, { at: 3_500, due: 3_505 }), 3_500);
    const [one] = await emitted(1, { at: -10, due: 10 });
    expect(await silent()).toEqual(["order.created"]);
    await db.query("update outbox_events set silent_since = now() + interval '1 hour'");
    await settleOrders(db, [reserved(one!)]);
    expect(await silent()).toEqual([]);
    expect(await db.query("select silent_since from outbox_events")).toEqual([{ silent_since: null }]);
  });

  it("is false again after a refusal, or after a reply that doesn't fit", async () => {
    const [one] = await emitted(1, { at: -10, due: 10 });
    expect(await silent()).toEqual(["order.created"]);
    await refuseOrders(db, [refusalOf(one!)]);
    expect(await silent()).toEqual([]);
    await db.query("update outbox_events set replied_at = now() - interval '60 s', due_before = null");
    expect(await silent()).toEqual(["order.created"]);
    await settleOrders(db, [{ ...reserved(one!), lines_digest: "of other lines" }]);
    expect(await silent()).toEqual([]);
  });

  it("stays true while probes are published; with the first reply, rows whose own reply is overdue are due, and no others", async () => {
    const [overdue, replied] = [await emitted(2, { at: -6, due: 50 }), await emitted(1, { at: -6, due: 50 })];
    expect(await silent()).toEqual(["order.created"]);
    await db.query("update outbox set emitted_at = now() where subject = $1", [overdue[1]]); // a probe
    expect(await silent()).toEqual(["order.created"]);
    await settleOrders(db, replied.map(reserved));
    expect(await silent()).toEqual([]);
    expect(await take()).toEqual([overdue[0]]);
    expect(await take()).toEqual([]);
  });
});

describe("a relay", () => {
  const RETRY_MS = 300;
  const asked: string[] = [];
  let orders: OrdersService;
  beforeAll(async () => {
    await open({ nodes: [["orders"]], env: { OUTBOX_RETRY_MS: String(RETRY_MS), OUTBOX_RETRY_MAX_MS: "3600000" } });
    orders = shop.node("orders").getLocalService("orders") as unknown as OrdersService;
    shop.node("orders").createService({
      name: "products",
      events: {
        "order.created": (ctx: Context<{ orders: { order_id: string }[] }>) =>
          void asked.push(...ctx.params.orders.map((one) => one.order_id)),
        "order.cancelled": () => undefined,
      },
    });
    await until("the relay has noticed products", async () => (await db.query("delete from outbox_events returning 1")).length > 0);
  });
  afterAll(() => shop.stop());

  it("without replies publishes one order per interval; once any node has a reply, all waiting and new ones", async () => {
    const lost = await emitted(300, { at: -60, due: 3_600 });
    await until("one order is published", () => asked.length > 0);
    await until("four orders are published", () => asked.length >= 4);
    // by the database's clock: on a busy machine the events may arrive late, and then in quick succession
    const [span] = await db.query<{ ms: number }>(
      "select (extract(epoch from max(emitted_at) - min(emitted_at)) * 1000)::int as ms from outbox where subject = any($1)",
      [asked.slice(0, 4)],
    );
    expect(span?.ms).toBeGreaterThan(2 * RETRY_MS); // three intervals
    expect(new Set(asked).size).toBe(asked.length);
    expect(orders.inFlightCap(orderCreated).maxInFlight).toBe(2);
    const fresh = await waiting(100, 2);
    await until("one new order is published", () => asked.includes(fresh[0]!));
    expect(asked).not.toContain(fresh.at(-1));
    await settleOrders(db, [reserved(asked[0]!)]);
    // in much less than the two minutes that probes would take
    await until("all orders are published", () => [...lost.filter((id) => id !== asked[0]), ...fresh].every((id) => asked.includes(id)));
  });
});
