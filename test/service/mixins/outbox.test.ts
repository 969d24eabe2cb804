import { randomUUID } from "node:crypto";
import fc from "fast-check";
import { ServiceBroker, type Context } from "moleculer";
import { asSystem, call } from "../../../broker/contract";
import { canDeliver } from "../../../broker/listeners";
import { logUnexpected } from "../../../broker/logger";
import { digestOf, NO_LINES } from "../../../contracts/lines";
import { NIL_ID } from "../../../contracts/contract";
import { audit, cancel, create } from "../../../contracts/orders";
import type { Outcome, Quote, Refusal } from "../../../contracts/products";
import { runChecks } from "../../../mixins/audit";
import type { Database } from "../../../mixins/database";
import type { WithDatabase } from "../../../mixins/database.mixin";
import { claim, steady, type OutboxLimits } from "../../../mixins/outbox.claim";
import type { WithOutbox } from "../../../mixins/outbox.mixin";
import { brokerOptions } from "../../../moleculer.config";
import { CHECKS } from "../../../services/orders/audit.store";
import { insertOrders } from "../../../services/orders/insert.store";
import { lockOrder, writeCancelled } from "../../../services/orders/transitions.store";
import { until } from "../../../testkit/until";
import { testId } from "../../../testkit/ids";
import { startShop, type Shop } from "../../../testkit/shop";

type OrdersService = WithDatabase &
  WithOutbox & { relayState: { running?: Promise<void>; timer?: NodeJS.Timeout; reachable: ReadonlySet<string> } };

/** Nothing is republished automatically in these tests: they make rows due themselves. */
const PATIENT = { OUTBOX_RETRY_MS: "3600000", OUTBOX_RETRY_MAX_MS: "3600000" };
const USER = { meta: { user: { id: testId(1), role: "user" as const } } };
const PRODUCT = testId(1);

/** A products service that receives events but sends no replies; the tests send them. */
class SilentProducts {
  readonly asked: string[] = [];
  /** The users of the received orders. */
  readonly buyers: (string | undefined)[] = [];
  times = (order_id: string) => this.asked.filter((id) => id === order_id).length;

  on(broker: ServiceBroker): this {
    const onEvent = (ctx: Context<{ orders: { order_id: string; user_id?: string }[] }>) => {
      this.asked.push(...ctx.params.orders.map((order) => order.order_id));
      this.buyers.push(...ctx.params.orders.map((order) => order.user_id));
    };
    broker.createService({
      name: "products",
      actions: {
        quote: (ctx: Context<{ ids: string[] }>) =>
          ctx.params.ids.map((id): Quote => ({ id, name: "Lamp", price_cents: 100, quantity: 1_000 })),
      },
      events: { "order.created": onEvent, "order.cancelled": onEvent },
    });
    return this;
  }
}

let shop: Shop;
let broker: ServiceBroker;
let orders: OrdersService;
let db: Database;

/** The number of event handlers that have failed. On a busy machine, one may exceed the time limit of a statement or of the pool. */
let failures = 0;
const countFailures: typeof logUnexpected = function (error, info) {
  if ("event" in info) failures++;
  logUnexpected.call(this, error, info);
};

const start = (options: Parameters<typeof startShop>[0]) => async () => {
  shop = await startShop({ env: PATIENT, ...options, broker: { errorHandler: countFailures, ...options?.broker } });
  broker = shop.node("orders");
  orders = broker.getLocalService("orders") as unknown as OrdersService;
  db = orders.db;
};
const stop = () => shop.stop();

const LINES_DIGEST = digestOf([{ product_id: PRODUCT, quantity: 1 }]);

/** Inserts orders as a node leaves them that dies right after the commit: with rows, but unpublished. @returns their ids, in the rows' order */
async function committed(n: number, payload: unknown = { lines: [{ product_id: PRODUCT, quantity: 1 }] }, user = 1): Promise<string[]> {
  const rows = await db.query<{ subject: string }>(
    `with created as (
       insert into orders (user_id, idempotency_key, request_hash, lines_digest, total_cents)
       select $3, gen_random_uuid(), '-', $5, 100 from generate_series(1, $1) returning id
     ), lines as (insert into order_lines select id, $4, 'Lamp', 100, 1 from created
     ), history as (insert into order_history (order_id, status) select id, 'PENDING' from created)
     insert into outbox (subject, user_id, event, payload) select id, $3, 'order.created', $2 from created order by id returning subject`,
    [n, JSON.stringify(payload), testId(user), PRODUCT, LINES_DIGEST],
  );
  return rows.map((row) => row.subject);
}
/** The first order on a busy machine may take longer than an order may otherwise. */
const place = async (): Promise<string> =>
  (await call(broker, create, { items: [{ product_id: PRODUCT, quantity: 1 }] }, { ...USER, timeout: 20_000 })).order.id;
const cancelled = (id: string) => call(broker, cancel, { id }, USER);
/** Sends a reply until its handler has succeeded, as products does: a handler that failed has been rolled back. */
async function reply(event: string, payload: object): Promise<void> {
  for (let attempt = 1; attempt <= 5; attempt++) {
    const before = failures;
    await broker.emit(event, payload);
    if (failures === before) return;
  }
  throw new Error(`the handler of ${event} fails`);
}
const settled = (...outcomes: Outcome[]) => reply("stock.settled", { orders: outcomes });
const refused = (order_id: string, permanent: boolean) =>
  reply("stock.refused", { orders: [{ order_id, event: "order.created", permanent, message: "no such thing" } satisfies Refusal] });
const outcome = (order_id: string, what: Outcome["outcome"], lines_digest = LINES_DIGEST): Outcome =>
  what === "REJECTED"
    ? { order_id, outcome: what, lines_digest, shortages: [{ product_id: PRODUCT, wanted: 1, available: 0 }] }
    : { order_id, outcome: what, lines_digest };

/** An order's current state, and that of each of its outbox rows. */
type State = { status: string; reason: string | null; version: number; outbox: Record<string, string> };
const STATE =
  "select status, reason, version, (select jsonb_object_agg(event, state) from outbox where subject = $1) as outbox from orders where id = $1";
const stateOf = async (id: string) => (await db.query<State>(STATE, [id]))[0]!;
/** Runs the relay once, to its end. */
const turn = async () => {
  await orders.relayState.running;
  orders.relay();
  await orders.relayState.running;
};
const turnWhenAllIsDue = () => db.query("update outbox set next_attempt_at = now() where state = 'PENDING'").then(turn);
/** Noticing a listener makes all rows due, which would publish an order that is placed before it twice. */
const relayNoticesProducts = async (): Promise<void> => {
  await until("the relay has noticed products", () => orders.relayState.reachable.size === 2);
  await orders.relayState.running;
};
const attemptsOf = async (ids: string[]) =>
  (await db.query<{ attempts: number }>("select attempts from outbox where subject = any($1) order by 1", [ids])).map(
    (row) => row.attempts,
  );

describe("claiming, without a listener for the relay's own events", () => {
  beforeAll(start({ nodes: [["orders"]] }));
  afterAll(stop);
  beforeEach(() => db.query("update outbox set state = 'SETTLED'"));
  /** No reply becomes overdue during a test. */
  const PATIENCE = 3_600_000;
  const limits = (over: Partial<OutboxLimits>): OutboxLimits => ({
    retryMs: PATIENCE,
    retryMaxMs: 1e9,
    maxInFlight: 1_000,
    batch: 1_000,
    ...over,
  });
  const ORDINARY = { event: "order.created", large: false };
  const LARGE = { event: "order.created", large: true };
  const pace = (over: Partial<OutboxLimits>) => steady(limits(over));

  const drafts = (...users: number[]) =>
    users.map((user) => ({ user_id: testId(user), idempotency_key: randomUUID(), request_hash: "-", total_cents: 100, lines: [] }));
  const numberOf = (id = "") => Number(id.slice(-12)); // the inverse of testId
  /** The users whose orders are claimed as they are written. */
  const claimedOf = async (users: number[], maxInFlight: number) => {
    const { orders, claimed } = await insertOrders(db, drafts(...users), { maxInFlight, retryMs: PATIENCE, windowMs: PATIENCE });
    return claimed.map(({ subject }) => numberOf(orders.find((order) => order?.id === subject)?.user_id));
  };

  it("each attempt waits twice as long as the previous one, up to the maximum, even after ten thousand attempts", async () => {
    const waits = fc.record({ retryMs: fc.integer({ min: 10, max: 60_000 }), retryMaxMs: fc.integer({ min: 10, max: 3_600_000 }) });
    const [id] = await committed(1);
    await fc.assert(
      fc.asyncProperty(waits, async ({ retryMs, retryMaxMs }) => {
        await db.transaction(async (query) => {
          const inside = Object.assign(Object.create(db), { query }) as Database; // one transaction has one now()
          for (const attempt of [0, 1, 2, 3, 4, 5, 19, 20, 10_000]) {
            await query("update outbox set next_attempt_at = now(), attempts = $2 where subject = $1", [id, attempt]);
            expect((await claim(inside, pace({ retryMs, retryMaxMs }), ORDINARY, NIL_ID)).rows).toHaveLength(1);
            const [row] = await query("select attempts, extract(epoch from next_attempt_at - now()) * 1000 as wait from outbox where subject = $1", [id]); // prettier-ignore
            expect(row!["attempts"]).toBe(attempt + 1);
            expect(Number(row!["wait"])).toBeCloseTo(Math.min(retryMaxMs, retryMs * 2 ** Math.min(attempt, 20)), 1);
            expect((await claim(inside, pace({}), ORDINARY, NIL_ID)).rows).toEqual([]); // no longer due
          }
        });
      }),
      { numRuns: 10 },
    );
  });

  it("a user's new rows are claimed oldest first, a batch at a time, until a quarter of the cap is in flight; each reply frees one place", async () => {
    const ids = await committed(10);
    const take = async () => {
      const { rows, isHeldBack } = await claim(db, pace({ maxInFlight: 20, batch: 3 }), ORDINARY, NIL_ID);
      return [rows.map((row) => row.subject), isHeldBack];
    };
    expect([await take(), await take(), await take()]).toEqual([[ids.slice(0, 3), false], [ids.slice(3, 5), true], [[], true]]); // prettier-ignore
    await settled(outcome(ids[1]!, "RESERVED"));
    expect([await take(), await take()]).toEqual([[[ids[5]], true], [[], true]]); // prettier-ignore
    await refused(ids[0]!, true);
    expect(await take()).toEqual([[ids[6]], true]);
    const again = () => db.query("update outbox set next_attempt_at = now() - interval '1 day' + id * interval '1 s' where attempts > 0");
    await again(); // overdue rows come first, and count towards the user's share
    expect([await take(), await take(), await take()]).toEqual([[ids.slice(2, 5), false], [ids.slice(5, 7), true], [[], true]]); // prettier-ignore
    await settled(...ids.slice(2, 5).map((id) => outcome(id, "RESERVED")));
    await again();
    expect((await take())[0]).toEqual(ids.slice(5, 8)); // two overdue rows and a new one make a batch
  });

  it("new rows of several users are claimed in turn, however many one of them has, and all together up to the cap", async () => {
    const many = await committed(300, undefined, 1);
    const [few, one] = [await committed(2, undefined, 7), await committed(1, undefined, 9)];
    let turn = NIL_ID;
    const take = async (maxInFlight: number) => {
      const claimed = await claim(db, pace({ maxInFlight, batch: 6 }), ORDINARY, turn);
      turn = claimed.turn;
      return claimed.rows.map((row) => row.subject);
    };
    expect(await take(400)).toEqual([many[0], many[1], few[0], few[1], one[0]]);
    expect(await take(400)).toEqual(many.slice(2, 8));
    const late = await committed(1, undefined, 3);
    turn = testId(7); // on a node that served another user last
    const more = await claim(db, pace({ maxInFlight: 400, batch: 6 }), ORDINARY, turn);
    expect(more.rows.map((row) => row.subject).sort()).toEqual([...many.slice(8, 11), ...late].sort());
    expect(await take(13)).toEqual([]); // 15 are in flight
  });

  it.each([
    ["one row each", 10, 3],
    ["several rows each", 40, 2],
  ])("if more users have rows than can be served at once, with %s, the next passes serve the others", async (_, maxInFlight, passes) => {
    const userOf = new Map<string, number>();
    for (let user = 1; user <= 30; user++) for (const id of await committed(10, undefined, user)) userOf.set(id, user);
    const served = new Set<number | undefined>();
    let turn = testId(25); // as on a node that last served a user in the middle
    for (let i = 0; i < passes; i++) {
      const claimed = await claim(db, pace({ maxInFlight, batch: 50 }), ORDINARY, turn);
      expect(claimed.rows).toHaveLength(maxInFlight);
      for (const row of claimed.rows) served.add(userOf.get(row.subject));
      turn = claimed.turn;
      await settled(...claimed.rows.map((row) => outcome(row.subject, "RESERVED")));
    }
    expect(served.size).toBe(30);
  });

  it("an order of many lines counts as several, both for its buyer's quarter and for the whole cap", async () => {
    const heavy = [await committed(4, undefined, 1), await committed(4, undefined, 2)];
    await db.query("update outbox set weight = 25 where state = 'PENDING'");
    const light = await committed(3, undefined, 3);
    let turn = NIL_ID;
    const take = async (maxInFlight: number) => {
      const claimed = await claim(db, pace({ maxInFlight }), ORDINARY, turn);
      turn = claimed.turn;
      return [claimed.rows.map((row) => row.subject), claimed.isHeldBack];
    };
    expect(await take(60)).toEqual([[heavy[0]![0], heavy[1]![0], ...light], true]); // 53 of 60
    expect(await take(60)).toEqual([[], true]); // a quarter is 15
    expect(await take(120)).toEqual([[heavy[0]![1], heavy[1]![1]], true]); // 103 of 120, and of each buyer 50 of 30
    await settled(...light.map((id) => outcome(id, "RESERVED")));
    await settled(outcome(heavy[0]![0]!, "RESERVED"));
    expect(await take(104)).toEqual([[heavy[0]![2]], true]); // 25 of 26
  });

  it("if orders of many lines fill a batch, further claims follow at once until the cap is reached", async () => {
    for (const user of [1, 2, 3, 4]) await committed(4, undefined, user);
    await db.query("update outbox set weight = 25 where state = 'PENDING'");
    const passes: [number, boolean][] = [];
    let turn = NIL_ID;
    do {
      const claimed = await claim(db, pace({ maxInFlight: 200, batch: 6 }), ORDINARY, turn);
      turn = claimed.turn;
      passes.push([claimed.rows.length, claimed.isMore]);
    } while (passes.at(-1)?.[1]);
    expect(passes).toEqual([...Array<unknown>(7).fill([1, true]), [1, false]]); // 8 times 25 is 200
  });

  it("the weight of orders is written with them, and a cancel weighs as much as its order", async () => {
    const lines = Array.from({ length: 100 }, (_, n) => ({ product_id: testId(n), name: "Lamp", unit_price_cents: 100, quantity: 1 }));
    const heavy = drafts(1, 2, 4).map((draft) => ({ ...draft, lines }));
    const { orders, claimed } = await insertOrders(db, heavy, { maxInFlight: 26, retryMs: PATIENCE, windowMs: PATIENCE });
    expect(claimed.map(({ user_id }) => user_id)).toEqual([testId(1), testId(2)]); // the cap was not reached before the second
    await db.transaction((query) => writeCancelled(query, orders[0]!.id));
    const rows = await db.query("select user_id, event, weight, large from outbox where state = 'PENDING' order by id");
    expect(rows).toEqual([
      { user_id: testId(1), event: "order.created", weight: 25, large: true },
      { user_id: testId(2), event: "order.created", weight: 25, large: true },
      { user_id: testId(4), event: "order.created", weight: 25, large: true },
      { user_id: testId(1), event: "order.cancelled", weight: 25, large: true },
    ]);
  });

  it("large orders and the others have separate turns: neither waits for the other's", async () => {
    const large = [...(await committed(3, undefined, 1)), ...(await committed(3, undefined, 2))];
    await db.query("update outbox set large = true where state = 'PENDING'");
    expect(await claimedOf([3, 3], 100)).toEqual([3, 3]);
    const small = await committed(2, undefined, 3);
    const take = async (isLarge: boolean) =>
      (await claim(db, pace({ maxInFlight: 3 }), isLarge ? LARGE : ORDINARY, NIL_ID)).rows.map((row) => row.subject);
    expect(await take(false)).toEqual([]); // two of three are in flight, and a user's share is one
    expect(await take(true)).toEqual([large[0], large[3]]);
    await db.query("update outbox set next_attempt_at = now() where attempts > 0");
    expect(await take(true)).toEqual([large[0], large[3]]);
    const again = await claim(db, pace({ maxInFlight: 100 }), ORDINARY, NIL_ID);
    expect(again.rows.slice(2).map((row) => row.subject)).toEqual(small); // after the first two
  });

  it("users with their share in flight are skipped, and don't block others", async () => {
    const [five, six] = [await committed(2, undefined, 5), await committed(2, undefined, 6)];
    const [three] = await committed(1, undefined, 3);
    await db.query(
      "update outbox set attempts = 1, emitted_at = now(), next_attempt_at = now() + interval '1 hour' where subject = any($1)",
      [[five[0], six[0]]],
    );
    const claimed = await claim(db, pace({ maxInFlight: 3 }), ORDINARY, testId(4));
    expect(claimed).toMatchObject({ rows: [{ subject: three }], turn: testId(3), isHeldBack: true });
    await settled(outcome(three!, "RESERVED"));
    expect(await claim(db, pace({ maxInFlight: 3 }), ORDINARY, testId(4))).toEqual({
      rows: [],
      turn: testId(4),
      isHeldBack: true,
      isMore: false,
    });
  });

  it("if a user has fewer rows than its part of a batch, a further claim for the others follows at once", async () => {
    const [many, one] = [await committed(5, undefined, 1), await committed(1, undefined, 2)];
    const take = async () => {
      const { rows, isMore } = await claim(db, pace({ batch: 4 }), ORDINARY, NIL_ID);
      return [rows.map((row) => row.subject), isMore];
    };
    expect([await take(), await take()]).toEqual([[[...many.slice(0, 2), ...one], true], [many.slice(2), false]]); // prettier-ignore
  });

  it("a new order is not claimed as it is written while an earlier one is unclaimed", async () => {
    const [waits] = await committed(1, undefined, 9);
    expect(await claimedOf([1], 100)).toEqual([]);
    await db.query("update outbox set attempts = 1 where state = 'PENDING'");
    expect(await claimedOf([1], 100)).toEqual([1]);
    await settled(outcome(waits!, "RESERVED"));
  });

  it("of orders that are written together, every user's first is claimed before any user's second, in order of arrival", async () => {
    expect(await claimedOf([1, 1, 1, 3, 2], 2)).toEqual([1, 3]);
    await db.query("update outbox set state = 'SETTLED'");
    expect((await claimedOf([1, 1, 1, 2, 2], 8)).sort()).toEqual([1, 1, 2, 2]); // a quarter is two
    await db.query("update outbox set state = 'SETTLED'");
    expect(await claimedOf([1, 1, 1, 3, 2], 4)).toEqual([1, 3, 2]);
  });

  it("a user's order is published at once while another user's thousand are waiting, and each contains its user", async () => {
    await committed(1_000, undefined, 1);
    const products = new SilentProducts().on(broker);
    await until("a quarter of the cap is in flight", () => products.asked.length === 256);
    clearInterval(orders.relayState.timer); // "at once" is without the next sweep
    const other = { meta: { user: { id: testId(2), role: "user" as const } } };
    const next = (await call(broker, create, { items: [{ product_id: PRODUCT, quantity: 1 }] }, other)).order.id;
    await until("the order is published", () => products.times(next) === 1);
    orders.relayState.timer = setInterval(() => orders.relay(), 1_000);
    expect(products.buyers).toEqual([...Array<string>(256).fill(testId(1)), testId(2)]);
    await broker.destroyService("products");
  });

  it("a cancel is delivered while a listener in the same process is still handling the orders claimed with it", async () => {
    const [, second] = await committed(2);
    await db.transaction((query) => writeCancelled(query, second!));
    let end = (): void => undefined;
    const work = new Promise<void>((resolve) => (end = resolve));
    const emitted: string[] = [];
    broker.createService({
      name: "products",
      events: {
        "order.created": () => (emitted.push("order.created"), work),
        "order.cancelled": () => void emitted.push("order.cancelled"),
      },
    });
    await until("both are delivered", () => emitted.length === 2);
    end();
    await broker.destroyService("products");
    expect(emitted).toEqual(["order.created", "order.cancelled"]);
  });

  it("eight concurrent relays claim every row, new ones and those without a reply, and none of them twice", async () => {
    const ids = await committed(300);
    await db.query("update outbox set attempts = 1 where subject = any($1)", [ids.slice(0, 100)]);
    const relay = async (batch: number): Promise<string[]> => {
      const { rows } = await claim(db, pace({ batch, maxInFlight: 4_000 }), ORDINARY, NIL_ID);
      return rows.length === 0 ? [] : [...rows.map((row) => row.subject), ...(await relay(batch))];
    };
    const taken = (await Promise.all([1, 2, 3, 5, 7, 11, 13, 17].map(relay))).flat();
    const late = (await claim(db, pace({ maxInFlight: 4_000 }), ORDINARY, NIL_ID)).rows.map((row) => row.subject); // all may have been locked
    expect([...taken, ...late].sort()).toEqual(ids);
    expect(await attemptsOf(ids)).toEqual([...Array<number>(200).fill(1), ...Array<number>(100).fill(2)]);
  });

  it("nothing is claimed until there is a listener; then all rows without a reply are published at once, whenever their next attempt was due", async () => {
    const ids = await committed(3);
    await db.query("update outbox set attempts = 1, emitted_at = now(), next_attempt_at = now() + interval '1 hour' where subject = $1", [
      ids[1],
    ]);
    await turn();
    expect(await attemptsOf(ids)).toEqual([0, 0, 1]);
    const products = new SilentProducts().on(broker);
    await until("all orders are published", () => products.asked.length >= ids.length);
    expect(products.asked).toEqual(ids);
    expect(await attemptsOf(ids)).toEqual([1, 1, 2]);
  });
});

describe("over a network", () => {
  const joined: ServiceBroker[] = [];
  beforeAll(start({ nodes: [["orders"]], broker: { transporter: "Fake" } }));
  afterAll(() => Promise.all([stop(), ...joined.map((node) => node.stop())]));

  it("while products is gone nothing is claimed; a new node at once gets the orders to which the old one did not reply", async () => {
    const join = async (nodeId: string) => {
      const node = new ServiceBroker({ ...brokerOptions({ ...shop.config, nodeId }), transporter: "Fake" });
      joined.push(node);
      const products = new SilentProducts().on(node);
      return node.start().then(() => products);
    };
    const first = await join("first");
    await relayNoticesProducts();
    const emitted = await place();
    await until("the first node has the order", () => first.times(emitted) === 1);
    await joined.pop()?.stop();
    await until("orders has noticed that it is gone", () => !canDeliver(broker, "order.created"));
    await orders.relayState.running; // it may have begun before
    const [undelivered] = await committed(1);
    await turnWhenAllIsDue();
    expect(await attemptsOf([emitted, undelivered!])).toEqual([0, 1]);
    const second = await join("second");
    await until("the second node has both orders", () => second.times(emitted) + second.times(undelivered!) === 2);
  });
});

describe("an order and the replies to its events", () => {
  let products: SilentProducts;
  beforeAll(async () => {
    await start({ nodes: [["orders"]] })();
    products = new SilentProducts().on(broker);
    await relayNoticesProducts();
  });
  afterAll(stop);

  it("an order is republished each time it falls due, until the reply, and never after that", async () => {
    const id = await place();
    await turn();
    for (const n of [1, 2, 3]) {
      expect(products.times(id)).toBe(n);
      await turn();
      expect(products.times(id)).toBe(n); // not before it is due
      await turnWhenAllIsDue();
    }
    await settled(outcome(id, "RESERVED"));
    await turnWhenAllIsDue();
    expect(products.times(id)).toBe(4);
    expect((await stateOf(id)).outbox).toEqual({ "order.created": "SETTLED" });
  });

  it.each([
    ["RESERVED", { "order.created": "SETTLED", "order.cancelled": "PENDING" }],
    ["REJECTED", { "order.created": "SETTLED", "order.cancelled": "SETTLED" }],
    ["RELEASED", { "order.created": "SETTLED", "order.cancelled": "SETTLED" }],
  ] as const)("%s to a cancelled order settles %j, and the order stays CANCELLED", async (what, states) => {
    const id = await place();
    const { version } = await cancelled(id);
    await settled(outcome(id, what), outcome(id, what));
    expect(await stateOf(id)).toEqual({ status: "CANCELLED", reason: null, version, outbox: states });
  });

  it.each([
    ["RESERVED", "CONFIRMED", null],
    ["REJECTED", "REJECTED", `not enough stock: product ${PRODUCT}: 1 wanted, 0 left`],
  ] as const)("%s makes a pending order %s; whatever replies or refusals come after that changes nothing", async (what, status, reason) => {
    const id = await place();
    const reported = outcome(id, what);
    await Promise.all(Array.from({ length: 10 }, () => settled(reported, reported)));
    const after = { status, reason, version: 2, outbox: { "order.created": "SETTLED" } };
    expect(await stateOf(id)).toEqual(after);
    await settled(outcome(id, what === "RESERVED" ? "REJECTED" : "RESERVED"), outcome(randomUUID(), "RESERVED")); // the last one is unknown
    await refused(id, true);
    expect(await stateOf(id)).toEqual(after);
  });

  it("a locked order doesn't delay the orders that are settled with it", async () => {
    const [held = "", ...others] = await committed(3);
    await db.transaction(async (query) => {
      await lockOrder(query, held);
      await broker.emit("stock.settled", { orders: [held, ...others].map((id) => outcome(id, "RESERVED")) }); // fails for the locked one
      for (const id of others) expect(await stateOf(id)).toMatchObject({ status: "CONFIRMED" });
    });
    expect(await stateOf(held)).toMatchObject({ status: "PENDING" });
    await settled(outcome(held, "RESERVED"));
    expect(await stateOf(held)).toMatchObject({ status: "CONFIRMED" });
  });

  it("outcomes and cancels of the same orders at once: every order makes only legal transitions, each counted once", async () => {
    const act = fc.record({ order: fc.nat(2), what: fc.constantFrom("cancel", "settle", "settle" as const), twin: fc.boolean() });
    await fc.assert(
      fc.asyncProperty(fc.array(fc.boolean(), { minLength: 3, maxLength: 3 }), fc.array(act, { maxLength: 10 }), async (inStock, acts) => {
        const ids = await committed(3);
        const first = (i: number) => outcome(ids[i]!, inStock[i] ? "RESERVED" : "REJECTED");
        await Promise.all(
          acts.map(({ order, what, twin }) => {
            if (what === "cancel")
              return cancelled(ids[order]!).catch((error: unknown) => expect(error).toMatchObject({ type: "ORDER_NOT_CANCELLABLE" }));
            return twin ? settled(first(order), first((order + 1) % 3)) : settled(first(order));
          }),
        );
        await settled(...ids.map((_, i) => first(i)));
        for (const [i, id] of ids.entries()) {
          const { status, outbox } = await stateOf(id);
          expect(["CANCELLED", inStock[i] ? "CONFIRMED" : "REJECTED"]).toContain(status);
          const release = status === "CANCELLED" && { "order.cancelled": inStock[i] ? "PENDING" : "SETTLED" };
          expect(outbox).toEqual({ "order.created": "SETTLED", ...release });
        }
        const moves = "(select count(*) from order_history h where h.order_id = o.id)";
        expect(await db.query(`select id from orders o where id = any($1) and version <> ${moves}`, [ids])).toEqual([]);
        expect((await runChecks(db, CHECKS)).filter((check) => !check.ok)).toEqual([]);
      }),
      { numRuns: 25, endOnFailure: true },
    );
  });

  it("a cancel that began before the confirmation, but locked the order after it, comes later in the history", async () => {
    const id = await place();
    await db.transaction(async (query) => {
      const later = () => query("select where clock_timestamp() > now() + interval '3 ms'");
      await until("the clock has moved on", async () => (await later()).length > 0);
      await settled(outcome(id, "RESERVED"));
      await lockOrder(query, id);
      await writeCancelled(query, id);
    });
    const rows = "select status from order_history where order_id = $1 order by";
    const [written, byTime] = await Promise.all(["id", "at, id"].map((by) => db.query(`${rows} ${by}`, [id])));
    expect(written).toEqual(["PENDING", "CONFIRMED", "CANCELLED"].map((status) => ({ status })));
    expect(byTime).toEqual(written);
  });

  it("rows committed by a node that died before it published them are found by the sweep", async () => {
    const [id] = await committed(1);
    await until("the order is published", () => products.times(id!) === 1);
  });

  const reason = expect.stringMatching(/^parked: /) as string;
  const WAITING = { status: "PENDING", reason: null, version: 1, outbox: { "order.created": "PENDING" } };
  const PARKED = { status: "PENDING", reason, version: 2, outbox: { "order.created": "PARKED" } };
  const park = async (): Promise<string> => {
    const id = await place();
    await refused(id, true);
    return id;
  };

  it.each([
    ["ten refusals", 10, false],
    ["one permanent refusal", 1, true],
  ])("after %s, not earlier, the row is parked: the order shows the reason, and nothing more is published", async (_, n, permanent) => {
    const id = await place();
    for (let i = 1; i < n; i++) await refused(id, false);
    expect(await stateOf(id)).toEqual(WAITING);
    await refused(id, permanent);
    expect(await stateOf(id)).toEqual(PARKED);
    await refused(id, permanent);
    await turn();
    const asked = products.times(id);
    await turnWhenAllIsDue();
    expect([products.times(id), await stateOf(id)]).toEqual([asked, PARKED]);
  });

  it("a parked order can be cancelled: its reason is removed, the cancel is published, and its reply settles the parked row, too", async () => {
    const id = await park();
    await cancelled(id);
    const after = { status: "CANCELLED", reason: null, version: 3 };
    expect(await stateOf(id)).toEqual({ ...after, outbox: { "order.created": "PARKED", "order.cancelled": "PENDING" } });
    await settled(outcome(id, "RELEASED"));
    expect(await stateOf(id)).toEqual({ ...after, outbox: { "order.created": "SETTLED", "order.cancelled": "SETTLED" } });
  });

  it.each([
    ["RESERVED for other lines", () => ["RESERVED", digestOf([{ product_id: PRODUCT, quantity: 2 }])]],
    ["REJECTED for other lines", () => ["REJECTED", digestOf([{ product_id: testId(77), quantity: 1 }])]],
    ["RELEASED while it is pending", () => ["RELEASED"]],
    ["RELEASED as a tombstone, while it is pending", () => ["RELEASED", NO_LINES]],
  ] as [string, () => [Outcome["outcome"], string?]][])(
    "a reply that does not fit its order parks the row, and settles nothing: %s",
    async (_, reply) => {
      const id = await place();
      const other = await place();
      await settled(outcome(id, ...reply()), outcome(other, "RESERVED"));
      expect(await stateOf(id)).toEqual(PARKED);
      expect(await stateOf(other)).toMatchObject({ status: "CONFIRMED", outbox: { "order.created": "SETTLED" } });
      const [row] = await db.query<{ last_error: string }>("select last_error from outbox where subject = $1", [id]);
      expect(row?.last_error).toMatch(/^the reservation is R\w+ (for other lines|but the order is PENDING)$/);
      await settled(outcome(id, ...reply()));
      expect(await stateOf(id)).toEqual(PARKED);
      await settled(outcome(id, "RESERVED"));
      expect(await stateOf(id)).toMatchObject({ status: "CONFIRMED", outbox: { "order.created": "SETTLED" } });
    },
  );

  it.each([
    ["RESERVED", "CONFIRMED", null],
    ["REJECTED", "REJECTED", expect.stringMatching(/^not enough/)],
  ] as const)("%s that comes after the parking wins: the order is %s", async (what, status, why) => {
    const id = await park();
    await settled(outcome(id, what));
    expect(await stateOf(id)).toEqual({ status, reason: why, version: 3, outbox: { "order.created": "SETTLED" } });
  });
});

describe("in a whole shop", () => {
  beforeAll(start({ env: {} }));
  afterAll(stop);

  it("invalid payloads are refused and parked, while the orders around them are processed", async () => {
    const client = shop.client();
    await client.signUp();
    const product = await client.createProduct({ quantity: 10 });
    const fraction = { lines: [{ product_id: product, quantity: 1.5 }] };
    const payloads = [{ lines: "none" }, {}, [], "text", null, 7, fraction, { order_id: testId(1), lines: [] }];
    const broken = (await Promise.all(payloads.map((payload) => committed(1, payload)))).flat();
    const sound = await Promise.all(Array.from({ length: 5 }, async () => String((await client.order(product, 1)).body["id"])));
    for (const id of sound) expect((await client.decided(id))["status"]).toBe("CONFIRMED");
    const parked = () => db.query("select from outbox where state = 'PARKED' and refusals = 1");
    await until("the invalid ones are parked", async () => (await parked()).length === broken.length);
    for (const id of broken) expect(await stateOf(id)).toMatchObject({ status: "PENDING", reason: expect.stringMatching(/^parked/) });
    expect(await client.quantityOf(product)).toBe(5);
    expect(await call(broker, audit, {}, asSystem())).toMatchObject({ ok: true, parked: broken.length, in_flight: 0 });
  });
});
