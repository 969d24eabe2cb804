import fc from "fast-check";
import { Client as Postgres } from "pg";
import { MAX_ID, type Params } from "../../contracts/contract";
import * as products from "../../contracts/products";
import type { Database } from "../../mixins/database";
import { encodeCursor } from "../../mixins/keyset";
import * as outbox from "../../mixins/outbox";
import { claim, probing, steady } from "../../mixins/outbox.claim";
import { watchReplies } from "../../mixins/outbox.replies";
import { insertOrders } from "../../services/orders/insert.store";
import { listOrders } from "../../services/orders/read.store";
import { listProducts } from "../../services/products/products.store";
import { testId } from "../../testkit/ids";
import { startShop, type Shop } from "../../testkit/shop";

/** So many that reading all of them would be noticed. */
const MANY = 20_000;

/** SQL for `testId` of a numeric expression. */
const idOf = (n: string): string => `('00000000-0000-7000-8000-' || lpad((${n})::text, 12, '0'))::uuid`;

let shop: Shop, catalogue: Postgres, orders: Postgres;

beforeAll(async () => {
  shop = await startShop({ nodes: [["products", "orders"]] });
  [catalogue, orders] = [new Postgres(shop.databases.products.url), new Postgres(shop.databases.orders.url)];
  await Promise.all([catalogue.connect(), orders.connect()]);
});
afterAll(async () => {
  await Promise.all([catalogue.end(), orders.end()]);
  await shop.stop();
});

interface Node {
  "Node Type": string;
  "Relation Name"?: string;
  "Actual Rows": number;
  "Actual Loops": number;
  "Rows Removed by Filter"?: number;
  "Rows Removed by Index Recheck"?: number;
  Plans?: Node[];
}

/** Rows that a plan read from tables, including those that it discarded. */
function rowsOf(node: Node): number {
  const taken = node["Actual Rows"] + (node["Rows Removed by Filter"] ?? 0) + (node["Rows Removed by Index Recheck"] ?? 0);
  const below = (node.Plans ?? []).reduce((sum, plan) => sum + rowsOf(plan), 0);
  return below + (node["Relation Name"] === undefined ? 0 : Math.ceil(taken * node["Actual Loops"]));
}

/** A database that explains each statement and counts the rows it reads. */
class Explainer {
  rows = 0;

  /** @param returnsRows whether a statement is also run: a search depends on the result of its first one */
  constructor(
    private readonly client: Postgres,
    private readonly returnsRows: boolean,
  ) {}

  adhoc = (text: string, values: unknown[]): Promise<unknown[]> => this.explain(text, values, "force_custom_plan");
  /** A prepared statement eventually gets the same, generic plan for all values. */
  query = (text: string, values: unknown[]): Promise<unknown[]> => this.explain(text, values, "force_generic_plan");

  private async explain(text: string, values: unknown[], plan: string): Promise<unknown[]> {
    await this.client.query(`set plan_cache_mode = ${plan}; set enable_seqscan = off; set jit = off`); // like the shop's connections
    const { rows } = await this.client.query<{ "QUERY PLAN": { Plan: Node }[] }>(`explain (analyze, format json) ${text}`, values);
    this.rows += rowsOf(rows[0]!["QUERY PLAN"][0]!.Plan);
    return this.returnsRows ? (await this.client.query<object>(text, values)).rows : [];
  }
}

/** Counts the rows that are read for a list. */
async function reads(client: Postgres, list: (db: Database) => Promise<unknown>): Promise<number> {
  const explainer = new Explainer(client, client === catalogue);
  await list(explainer as unknown as Database); // lists use nothing else
  return explainer.rows;
}

describe("a search for text without three letters in a row", () => {
  const search = async (params: Params<typeof products.list>) =>
    (await shop.node("products").call<{ items: { id: string; name: string }[] }, object>("products.list", params)).items;

  afterEach(() => catalogue.query("truncate products cascade"));

  it.each(["XL", "4k", "台灯", "台", "?!", "z\n", "%_", "\\", "a😀", "ab c", "- -"])("%j is found among a thousand others", async (q) => {
    await catalogue.query(
      `insert into products (name, price_cents, quantity, seller_id) select 'Lamp', 1, 1, ${idOf("1")} from generate_series(1, 1000)`,
    );
    const text = `Rug ${q.toLowerCase()}.`;
    await catalogue.query(
      "insert into products (name, description, price_cents, quantity, seller_id) values ($1, null, 2, 1, $2), ('Rug', $1, 2, 1, $2)",
      [text, testId(1)],
    );
    for (const sort of products.SORTS.filter((sort) => !sort.startsWith("-"))) expect(await search({ q, sort })).toHaveLength(2);
    expect(await search({ q, max_price: 0.01 })).toEqual([]);
  });

  it("finds the same as a search through every text", async () => {
    const character = fc.constantFrom(...Array.from("abAB0 .?\\%_\n\téÉ台灯😀"));
    const text = fc.string({ unit: character, minLength: 1, maxLength: 12 }).map((rest) => `x${rest}`);
    const query = fc.string({ unit: character, minLength: 1, maxLength: 3 }).filter((q) => q.trim() !== "");
    const small = (s: string): string => s.replace(/[A-Z]/g, (c) => c.toLowerCase());
    await fc.assert(
      fc.asyncProperty(fc.array(text, { minLength: 1, maxLength: 15 }), query, async (names, q) => {
        await catalogue.query("truncate products cascade");
        await catalogue.query(
          "insert into products (name, price_cents, quantity, seller_id) select n, 1, 1, $2 from unnest($1::text[]) as n",
          [names, testId(1)],
        );
        const expected = names.filter((name) => small(`${name} `).includes(small(q)));
        expect((await search({ q })).map(({ name }) => name).sort()).toEqual(expected.sort());
      }),
      { numRuns: 150 },
    );
  });
});

describe("stock", () => {
  it("changes without an index update, also when it becomes or stops being zero", async () => {
    const insert = "insert into products (name, price_cents, quantity, seller_id) values ('Lamp', 1, 3, $1) returning id";
    const { id } = (await catalogue.query<{ id: string }>(insert, [testId(1)])).rows[0]!;
    const counted = async () =>
      Number((await catalogue.query("select pg_stat_get_xact_tuples_hot_updated('products'::regclass) as n")).rows[0].n);
    const hot = async (delta: number) => {
      await catalogue.query("begin");
      const before = await counted();
      const { rows } = await catalogue.query(
        "update products set quantity = quantity + $2, version = version + 1, updated_at = now() where id = $1 returning sold_out",
        [id, delta],
      );
      const after = await counted();
      await catalogue.query("commit");
      return [after - before, Boolean(rows[0].sold_out)];
    };
    expect([await hot(-1), await hot(-1), await hot(-1), await hot(2)]).toEqual([
      [1, false],
      [1, false],
      [1, true],
      [1, false],
    ]);
  });
});

describe("a search, after somebody has added many products that do not match and come first", () => {
  afterEach(() => catalogue.query("truncate products cascade"));

  // Found by the planner's statistics alone, these were all scanned: one word in fifty products filled a page soon, of those known to it.
  it.each(["kind05", "k5"])("reads a thousand products and the matches: %s", async (q) => {
    const insert = (name: string, count: number, since: string) =>
      catalogue.query(
        `insert into products (name, price_cents, quantity, seller_id, created_at)
         select ${name}, 1, 1, ${idOf("1")}, now() + interval '${since}' + n * interval '1 s' from generate_series(1, $1::int) as n`,
        [count],
      );
    await insert("'product ' || n || ' kind' || lpad((n % 50)::text, 2, '0') || ' k' || n % 50", 500, "0");
    await catalogue.query("analyze products");
    await insert("'other ' || n", 20_000, "1 day");
    expect(await reads(catalogue, (db) => listProducts(db, { q, sort: "-created_at" }))).toBeLessThan(1_200);
  });
});

describe(`a list of ${MANY} products`, () => {
  beforeAll(async () => {
    await catalogue.query(
      `insert into products (name, description, category, price_cents, quantity, seller_id, created_at)
       select 'Lamp ' || hashint4(i), case when i % 2 = 0 then 'everyday' end || case when i = 77 then ' zephyrine' else '' end,
         'c' || abs(hashint4(i)) % 20, abs(hashint4(i + 1)) % 10000, i % 10, ${idOf("abs(hashint4(i + 2)) % 20")}, now() + interval '1 second' * i
       from generate_series(1, $1::int) as i`,
      [MANY],
    );
    await catalogue.query("vacuum analyze products");
  });

  const FILTERS = [
    {},
    { category: "c7" },
    { seller_id: testId(7) },
    { in_stock: false },
    { in_stock: true },
    { q: "everyday" },
    { q: "ever", category: "c7" },
  ];
  const cases = FILTERS.flatMap((filter) => products.SORTS.map((sort) => ({ ...filter, sort })));
  it.each<Params<typeof products.list>>(cases)("%j reads little more than it returns", async (params) => {
    // One product in ten is sold out, and the others before the 21st of these are read as well. A search scans a thousand at most.
    const most = params.q !== undefined ? 1_100 : params.in_stock === false ? 350 : 150;
    expect(await reads(catalogue, (db) => listProducts(db, params))).toBeLessThan(most);
  });

  it.each(products.SORTS)("by %s reads as little in the middle as at the start", async (sort) => {
    const { rows } = await catalogue.query(
      "select id, name, price_cents::int as price, (extract(epoch from created_at) * 1000)::float8 as created_at from products order by id offset 10000 limit 1",
    );
    const cursor = encodeCursor(`products:${sort.replace("name", "name_sort_key")}`, [rows[0][sort.replace("-", "")], rows[0].id]);
    expect(await reads(catalogue, (db) => listProducts(db, { sort, cursor }))).toBeLessThan(50);
  });

  it.each(["zephyrine", "no such thing", "zq", "?!", "ж"])("reads a thousand products for rare text: %s", async (q) => {
    for (const sort of products.SORTS) expect(await reads(catalogue, (db) => listProducts(db, { q, sort }))).toBeLessThan(1_100);
  });
});

describe(`a list of ${MANY} orders`, () => {
  /** Eight orders share each millisecond. */
  const [FIRST, MIDST] = [Date.UTC(2026, 0, 1), Date.UTC(2026, 0, 1) + MANY / 16];
  beforeAll(async () => {
    await orders.query(
      `insert into orders (user_id, idempotency_key, request_hash, lines_digest, status, total_cents, created_at)
       select ${idOf("case when i <= 500 then 1 else 2 + i % 10 end")}, i, '-', '-', case when i % 50 = 0 then 'REJECTED' else 'CONFIRMED' end, 1,
         to_timestamp($2 / 1000.0) + i / 8 * interval '1 ms'
       from generate_series(1, $1::int) as i`,
      [MANY, FIRST],
    );
    await orders.query(
      "insert into outbox (subject, event, payload, state, attempts, settled_at) select id, 'order.created', '{}', case row_number() over () % 5000 when 0 then 'PARKED' else 'SETTLED' end, 1, now() from orders",
    );
    await orders.query("vacuum analyze");
  });

  const CASES = [
    { userId: testId(1) },
    { userId: testId(5) },
    { userId: testId(1), status: "REJECTED" },
    { status: "REJECTED" },
    { status: "PENDING" },
    {},
  ] as const;
  it.each(CASES)("%j reads only those orders, however old they are", async (filter) => {
    const params = { userId: undefined, status: undefined, limit: 20, cursor: undefined, ...filter };
    for (const cursor of [undefined, encodeCursor("orders", [MIDST, MAX_ID])])
      expect(await reads(orders, (db) => listOrders(db, { ...params, cursor }))).toBeLessThan(100);
  });

  it("pending and parked rows are found among settled ones", async () => {
    expect(await reads(orders, (db) => outbox.list(db, ["PENDING", "PARKED"], 0, 21))).toBeLessThan(30);
  });

  it("a claim reads little more than it takes, though many users' orders are pending that the planner's statistics don't include yet", async () => {
    await orders.query(
      "insert into outbox (subject, user_id, event, payload) select id, id, 'order.cancelled', '{}' from orders order by id limit 3000",
    );
    const turn = (await orders.query<{ id: string }>("select id from orders order by id offset 100 limit 1")).rows[0]!.id;
    const queue = { event: "order.cancelled", large: false };
    expect(await reads(orders, (db) => claim(db, steady(LIMITS), queue, turn))).toBeLessThan(1_000);
  });
});

const LIMITS = { retryMs: 5_000, retryMaxMs: 60_000, maxInFlight: 1_024, batch: 128 };

describe("a backlog of 100,000 orders that the planner's statistics don't include yet", () => {
  const QUEUE = { event: "order.created", large: false };
  const draft = { user_id: testId(3), idempotency_key: "new", request_hash: "-", total_cents: 1, lines: [] };
  let quiet: Shop, orders: Postgres;
  /** Half of them are new, most others in back-off, and some due. There is no listener, so no relay claims them. */
  beforeAll(async () => {
    quiet = await startShop({ nodes: [["orders"]] });
    orders = new Postgres(quiet.databases.orders.url);
    await orders.connect();
    await orders.query(
      `with created as (
         insert into orders (user_id, idempotency_key, request_hash, lines_digest, total_cents)
         select ${idOf("100 + i % 3000")}, 'waits ' || i, '-', '-', 1 from generate_series(1, 100000) as i returning id, user_id, idempotency_key
       )
       insert into outbox (subject, user_id, event, payload, attempts, emitted_at, next_attempt_at)
       select id, user_id, 'order.created', '{}', case when n % 2 = 0 then 3 else 0 end, case when n % 2 = 0 then now() - interval '60 s' - n * interval '1 ms' end,
         case when n % 20 = 0 then now() - interval '1 s' else now() + interval '50 s' end
       from (select id, user_id, split_part(idempotency_key, ' ', 2)::int as n from created) as numbered`,
    );
  }, 60_000);
  afterAll(async () => {
    await orders.end();
    await quiet.stop();
  });

  it.each([
    ["while replies come", steady(LIMITS)],
    ["while nothing replies", probing(LIMITS, 1_000)],
  ])("a claim %s reads little more than it takes", async (_, pace) => {
    expect(await reads(orders, (db) => claim(db, pace, QUEUE, testId(1_500)))).toBeLessThan(1_000);
  });

  it("a claim reads little more than it takes, though all published rows are due", async () => {
    await orders.query("insert into outbox_events (event, due_before) values ('order.created', now())");
    expect(await reads(orders, (db) => claim(db, steady(LIMITS), QUEUE, testId(1_500)))).toBeLessThan(1_500);
  });

  it("the check for replies, and placing an order, read next to nothing of it", async () => {
    expect(
      await reads(orders, (db) => watchReplies(db, [QUEUE.event, "order.cancelled"], { patienceMs: 2_500, overdueMs: 5_000 })),
    ).toBeLessThan(50);
    expect(await reads(orders, (db) => insertOrders(db, [draft], { maxInFlight: 1_024, retryMs: 5_000, windowMs: 5_000 }))).toBeLessThan(
      600,
    );
  });
});
