import type { Client } from "pg";
import { testId } from "../../testkit/ids";
import { idOf } from "../../testkit/seed-products";

/** Superuser connections to the databases to fill. */
export interface Databases {
  readonly users: Client;
  readonly products: Client;
  readonly orders: Client;
}

/** The users of the measured requests. At every size their orders and products fill whole pages. */
export interface Actors {
  readonly buyer: string;
  readonly seller: string;
}

/** Filled rows have the ids `testId` of 1, 2, …, which sort before all ids that the shop generates. */
const LAST = testId(999_999_999_999);
/** The product in the first line of every twentieth order. */
const HOT_NUMBER = 1;
export const HOT = testId(HOT_NUMBER);
/** A user with as many orders as the measured buyer. */
export const OTHER_BUYER = testId(1);
/** Words in a known share of the products; the last one is in three of them. */
export const WORDS = {
  half: "everyday",
  tenth: "bestseller",
  hundredth: "vintage",
  thousandth: "limited",
  three: "zephyrine",
} as const;
/** Two letters that never follow each other in the syllables below. */
export const RARE_PAIR = "zq";
export const CATEGORY = "category 3";

const SYLLABLES =
  "ba be bo da de di fa fi ga go ha ka ko la le lo lu ma me mi mo na ne no pa pe po ra re ri ro sa se si so ta te ti to va ve vi";
const ADJECTIVES =
  "Quiet Bright Small Large Folding Round Square Heavy Light Soft Modern Classic Rustic Slim Tall Wide Warm Cold Plain Fine";
const MATERIALS = "Oak Walnut Steel Brass Glass Cotton Linen Wool Leather Paper Copper Marble Bamboo Cork Felt";
const NOUNS =
  "Lamp Desk Chair Table Shelf Rug Vase Clock Mirror Basket Bowl Plate Mug Kettle Pan Knife Board Bottle Tray Candle Frame Pillow Blanket Curtain Bench Stool Sofa Bed Chest Hook";

/** An SQL array of the words, such as `'{a,b}'::text[]`. */
const array = (words: string): string => `'{${words.split(" ").join()}}'::text[]`;
/** SQL for a hash of an id and a salt, uniform over [0, 2^31). */
const hash = (id: string, salt: string | number): string => `(hashint8extended(${id}, ${salt}) & 2147483647)`;
const pick = (words: string, random: string): string => `(${array(words)})[1 + (${random} % ${words.split(" ").length})::int]`;
/** A few of the 42 × 42 words are frequent and many are rare, as in a language. With float8, since a power of numerics takes 200 times as long. */
const zipf = (random: string): string => `floor(power(${random}::float8 / 2147483648, 2.5) * 1764)::int`;
const word = (random: string): string => {
  const count = SYLLABLES.split(" ").length;
  return `(select (${array(SYLLABLES)})[1 + z % ${count}] || (${array(SYLLABLES)})[1 + z / ${count}] from (select ${zipf(random)} as z) as s)`;
};
const price = (id: string): string => `(100 + ${hash(id, 2)} % 100000)`;
const MOMENT = "timestamptz '2020-01-01' + interval '100 seconds' *";
/** Recent times: the shop deletes older settled outbox rows when it starts. */
const SETTLED = "now() - interval '1 second' * (1 + o % 500000)";

/** The lines of orders $1 to $2, the same in both databases: 1 to 3 lines each, of products that are in stock, out of $3 products. */
const LINES = `
  insert into fill_lines
  select o, case when j = 1 and o % 20 = 0 then ${HOT_NUMBER} when p % 50 = 0 then p - 1 else p end, 1 + (o + j) % 3
  from generate_series($1::bigint, $2::bigint) as o
  cross join lateral generate_series(1, 1 + (o % 3)::int) as j
  cross join lateral (select 2 + (${hash("o", 1)} + j * 331) % ($3::bigint - 1) as p) as x`;
const LINES_TABLE = "create temp table fill_lines (order_id bigint, product_id bigint, quantity bigint)";
/** Of a hundred orders, 5 are cancelled after their confirmation, 5 rejected and 90 confirmed. */
const STATUS = "case when o % 100 < 5 then 'CANCELLED' when o % 100 < 10 then 'REJECTED' else 'CONFIRMED' end";

/**
 * Brings all tables to `size` products, orders and users, with statements on the server. Existing rows stay, and the data passes the audit.
 */
export async function fill(databases: Databases, size: number, { buyer, seller }: Actors, say: (line: string) => void): Promise<void> {
  const { users, products, orders } = databases;
  await timed(say, "users", async () => {
    await users.query(
      `insert into users (email, email_key, password_hash)
       select 'user' || i || '@shop.test', 'user' || i || '@shop.test', '-' from generate_series((select count(*) from users) + 1, $1::bigint) as i
       on conflict do nothing`,
      [size],
    );
    await users.query("vacuum analyze");
  });

  const firstProduct = (await countFilled(products, "products")) + 1;
  const lastProduct = firstProduct + size - (await count(products, "products")) - 1;
  const firstOrder = (await countFilled(orders, "orders")) + 1;
  const lastOrder = firstOrder + size - (await count(orders, "orders")) - 1;
  const lines = [firstOrder, lastOrder, lastProduct];

  await timed(say, "product_db", () =>
    unindexed(products, ["products", "reservations", "stock_movements"], say, async () => {
      await products.query(LINES_TABLE);
      await products.query(LINES, lines);
      await products.query("analyze fill_lines");
      await products.query(...newProducts(firstProduct, lastProduct, seller));
      await products.query(RESERVATIONS);
      await products.query(MOVEMENTS, [testId(firstProduct), testId(lastProduct)]);
      await products.query(STOCK);
      await products.query("drop table fill_lines");
    }),
  );
  await timed(say, "order_db", () =>
    unindexed(orders, ["orders", "order_lines", "order_history", "outbox"], say, async () => {
      await orders.query(LINES_TABLE);
      await orders.query(LINES, lines);
      await orders.query("analyze fill_lines");
      await orders.query(ORDERS, [buyer, Math.floor(size / 20) + 1]);
      await orders.query(ORDER_LINES);
      await orders.query(HISTORY, [firstOrder, lastOrder]);
      await orders.query(OUTBOX);
      await orders.query("drop table fill_lines");
    }),
  );
}

/** Every twentieth product is the measured seller's. Every fiftieth is sold out and in no order. The hot product has enough stock for all orders. */
function newProducts(first: number, last: number, seller: string): [string, unknown[]] {
  const description = `concat_ws(' ',
    (select string_agg(${word(hash("i", "10 + n"))}, ' ') from generate_series(1, 12) as n),
    case when ${hash("i", 32)} % 2 = 0 then '${WORDS.half}' end,
    case when ${hash("i", 3)} % 10 = 0 then '${WORDS.tenth}' end,
    case when ${hash("i", 4)} % 100 = 0 then '${WORDS.hundredth}' end,
    case when ${hash("i", 5)} % 1000 = 0 then '${WORDS.thousandth}' end,
    case when i in (17, 318, 719) then '${WORDS.three} ${RARE_PAIR}' end)`;
  return [
    `insert into products (id, name, description, category, sku, price_cents, quantity, seller_id, created_at, updated_at)
     select ${idOf("i")},
       ${pick(ADJECTIVES, hash("i", 6))} || ' ' || ${pick(MATERIALS, hash("i", 7))} || ' ' || ${pick(NOUNS, hash("i", 8))} || ' ' || ${hash("i", 9)} % 1000,
       ${description},
       'category ' || ${hash("i", 30)} % 20, 'SKU-' || i, ${price("i")},
       case when i % 50 = 0 then 0 when i = ${HOT_NUMBER} then 500000000 else 1000 end,
       case when i % 20 = 7 then $3::uuid else ${idOf(`1000000 + ${hash("i", 31)} % ($2::bigint / 20 + 1)`)} end,
       ${MOMENT} i, ${MOMENT} i
     from generate_series($1::bigint, $2::bigint) as i`,
    [first, last, seller],
  ];
}

const RESERVATIONS = `
  insert into reservations (order_id, state, lines, shortages, created_at, updated_at)
  select ${idOf("o")}, case ${STATUS} when 'CONFIRMED' then 'RESERVED' when 'CANCELLED' then 'RELEASED' else 'REJECTED' end, lines,
    case when o % 100 between 5 and 9 then jsonb_build_array(jsonb_build_object('product_id', lines -> 0 -> 'product_id', 'wanted', 3, 'available', 0)) else '[]' end,
    ${MOMENT} o, ${MOMENT} o
  from (
    select order_id as o, jsonb_agg(jsonb_build_object('product_id', ${idOf("product_id")}, 'quantity', quantity) order by product_id) as lines
    from fill_lines group by order_id order by order_id
  ) as x`;

/** The balances are arbitrary: the only check on them is that none is negative. */
const MOVEMENTS = `
  insert into stock_movements (product_id, order_id, kind, delta, balance, reason, created_at)
  select id, null, 'INITIAL', quantity, quantity, 'initial stock', created_at from products where id between $1 and $2 and quantity > 0
  union all
  (select ${idOf("product_id")}, ${idOf("o")}, kind, quantity * sign, 1000, 'order ' || ${idOf("o")} || case kind when 'RESERVE' then ' reserved' else ' released' end, ${MOMENT} o
   from (select order_id as o, product_id, quantity from fill_lines) as l
   join (values ('RESERVE', -1), ('RELEASE', 1)) as k (kind, sign) on ${STATUS} = 'CANCELLED' or ${STATUS} = 'CONFIRMED' and kind = 'RESERVE'
   order by o, kind desc, product_id)`;

const STOCK = `
  update products as p set quantity = p.quantity - l.held, reserved = p.reserved + l.held
  from (select product_id, sum(quantity)::bigint as held from fill_lines where order_id % 100 >= 10 group by product_id) as l where p.id = ${idOf("l.product_id")}`;

/** Equals `digestOf` of an order's lines; otherwise no cancel of a filled order would be settled. */
const DIGEST = `rtrim(translate(encode(sha256(
  convert_to(string_agg(${idOf("product_id")} || ':' || quantity, ',' order by product_id), 'UTF8')), 'base64'), '+/', '-_'), '=')`;

/** The measured buyer has a tenth of the first thousand orders and a hundredth of the others; so has OTHER_BUYER. */
const ORDERS = `
  insert into orders (id, user_id, idempotency_key, request_hash, lines_digest, status, total_cents, reason, version, created_at, updated_at)
  select ${idOf("o")},
    case case when o <= 1000 then o % 10 else o % 100 end when 0 then $1::uuid when 1 then '${OTHER_BUYER}' else ${idOf(`2 + ${hash("o", 20)} % $2::bigint`)} end,
    'fill-' || o, 'filled', digest, ${STATUS}, total,
    case when o % 100 between 5 and 9 then 'not enough stock: product ${HOT}: 3 wanted, 0 left' end, case when o % 100 < 5 then 3 else 2 end,
    ${MOMENT} o, ${MOMENT} o + interval '1 second'
  from (select order_id as o, sum(quantity * ${price("product_id")}) as total, ${DIGEST} as digest from fill_lines group by order_id order by order_id) as x`;

const ORDER_LINES = `
  insert into order_lines (order_id, product_id, name, unit_price_cents, quantity)
  select ${idOf("order_id")}, ${idOf("product_id")}, 'Quiet Oak Lamp ' || product_id % 1000, ${price("product_id")}, quantity from fill_lines order by order_id, product_id`;

const HISTORY = `
  insert into order_history (order_id, status, at)
  select ${idOf("o")}, status, ${MOMENT} o + interval '1 second' * n
  from generate_series($1::bigint, $2::bigint) as o
  cross join lateral (values (0, 'PENDING'), (1, case when o % 100 between 5 and 9 then 'REJECTED' else 'CONFIRMED' end), (2, 'CANCELLED')) as h (n, status)
  where n < 2 or o % 100 < 5
  order by o, n`;

const OUTBOX = `
  insert into outbox (subject, event, payload, state, attempts, next_attempt_at, created_at, settled_at)
  select ${idOf("o")}, event, case event when 'order.created' then payload else '{}' end, 'SETTLED', 1, ${SETTLED}, ${SETTLED}, ${SETTLED}
  from (
    select order_id as o, jsonb_build_object('lines', jsonb_agg(jsonb_build_object('product_id', ${idOf("product_id")}, 'quantity', quantity))) as payload
    from fill_lines group by order_id order by order_id
  ) as x
  join (values ('order.created'), ('order.cancelled')) as e (event) on event = 'order.created' or o % 100 < 5
  order by o, event desc`;

/** Creates the indexes after the rows, which is faster, and disables the triggers of foreign keys meanwhile. */
async function unindexed(client: Client, tables: readonly string[], say: (line: string) => void, work: () => Promise<void>): Promise<void> {
  const { rows } = await client.query<{ name: string; definition: string }>(
    `select i.indexrelid::regclass::text as name, pg_get_indexdef(i.indexrelid) as definition
     from pg_index i where i.indrelid = any($1::regclass[]) and not exists (select from pg_constraint c where c.conindid = i.indexrelid)`,
    [tables],
  );
  await client.query(
    "set session_replication_role = replica; set synchronous_commit = off; set work_mem = '256MB'; set maintenance_work_mem = '512MB'",
  );
  for (const { name } of rows) await client.query(`drop index ${name}`);
  await work();
  await timed(say, "  of which indexes", async () => {
    for (const { definition } of rows) await client.query(definition);
  });
  await client.query("reset all");
  await client.query("vacuum analyze");
  await client.query("checkpoint");
}

async function timed(say: (line: string) => void, what: string, work: () => Promise<void>): Promise<void> {
  const since = performance.now();
  await work();
  say(`${what}: ${((performance.now() - since) / 1000).toFixed(1)} s`);
}

/** The number of filled rows, without the shop's own; also the highest number in their ids. */
export const countFilled = (client: Client, table: "products" | "orders"): Promise<number> =>
  count(client, `${table} where id <= '${LAST}'`);

async function count(client: Client, from: string): Promise<number> {
  const { rows } = await client.query<{ n: string }>(`select count(*) as n from ${from}`);
  return Number(rows[0]?.n);
}
