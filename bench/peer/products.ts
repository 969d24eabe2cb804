import { parseId } from "../../contracts/contract";
import { PAGE_QUERY, PRODUCT, PRODUCTS, QUOTES, type OrderCreated, type Quote, type Shortage, type StockSettled } from "./schema";
import { Bus, Database, env, fromCents, Refusal, serve, server } from "./shared";

interface ProductRow {
  id: string;
  name: string;
  description: string | null;
  category: string | null;
  sku: string | null;
  price_cents: number;
  quantity: number;
  seller_id: string;
  version: number;
  created_at: string;
  updated_at: string;
}

const COLUMNS = "id, name, description, category, sku, price_cents, quantity, seller_id, version, created_at, updated_at";
const GET = { name: "get", text: `select ${COLUMNS} from products where id = $1 and archived_at is null` };
const QUOTE_ONE = { name: "quote1", text: "select id, name, price_cents, quantity from products where id = $1 and archived_at is null" };
const QUOTE = { name: "quote", text: "select id, name, price_cents, quantity from products where id = any($1) and archived_at is null" };

/**
 * Reservation, stock and ledger in one auto-committed statement. It locks the products in id order and checks their stock under the lock; it takes
 * stock only with a new reservation. It returns no row if the reservation existed before.
 */
const RESERVE = {
  name: "reserve",
  text: `
  with wanted as materialized (
    select * from unnest($2::uuid[], $3::bigint[]) as w (product_id, quantity)
  ), shelf as materialized (
    select id, quantity from products where id = any($2) and archived_at is null order by id for update
  ), short as materialized (
    select count(*) = 0 as none,
      coalesce(jsonb_agg(jsonb_build_object('product_id', w.product_id, 'wanted', w.quantity, 'available', coalesce(s.quantity, 0))), '[]') as shortages
    from wanted w left join shelf s on s.id = w.product_id where coalesce(s.quantity, 0) < w.quantity
  ), reserved as (
    insert into reservations (order_id, state, lines, shortages)
    select $1::uuid, case when none then 'RESERVED' else 'REJECTED' end, $4, shortages from short
    on conflict (order_id) do nothing
    returning state, shortages
  ), taken as (
    update products p
    set quantity = p.quantity - w.quantity, reserved = p.reserved + w.quantity, version = p.version + 1, updated_at = now()
    from wanted w, reserved r where p.id = w.product_id and r.state = 'RESERVED' and p.quantity >= w.quantity
    returning p.id, w.quantity as units, p.quantity as balance
  ), ledger as (
    insert into stock_movements (product_id, order_id, kind, delta, balance, reason)
    select id, $1, 'RESERVE', -units, balance, 'order ' || $1::uuid || ' reserved' from taken
  )
  select state, shortages from reserved`,
};
const STORED = { name: "stored", text: "select state, shortages from reservations where order_id = $1" };

const present = (row: ProductRow) => ({ ...row, price: fromCents(row.price_cents) });
const notFound = () => new Refusal(404, "PRODUCT_NOT_FOUND", "there is no such product");

const url = env("DATABASE_URL");
const reads = new Database(url, 3);
const writes = new Database(url, 4);
const app = server();

app.get<{ Params: { id: string } }>("/products/:id", { schema: { response: { 200: PRODUCT } } }, async (request, reply) => {
  const [row] = await reads.query<ProductRow>(GET, [request.params.id]);
  if (row === undefined) throw notFound();
  reply.header("etag", `"${row.version}"`);
  return present(row);
});

app.get<{ Querystring: { limit?: string; q?: string; cursor?: string } }>(
  "/products",
  { schema: { querystring: PAGE_QUERY, response: { 200: PRODUCTS } } },
  async (request) => {
    const { q, cursor } = request.query;
    const limit = Number(request.query.limit ?? 20);
    const values: unknown[] = [limit + 1];
    let where = "archived_at is null";
    if (q !== undefined)
      where += ` and (name || ' ' || coalesce(description, '')) ilike $${values.push(`%${q.replace(/[\\%_]/g, "\\$&")}%`)}`;
    if (cursor !== undefined) {
      const [at, before] = Buffer.from(cursor, "base64url").toString().split(" ");
      if (at === undefined || Number.isNaN(Date.parse(at)) || parseId(before ?? "") === undefined)
        throw new Refusal(400, "BAD_REQUEST", "the cursor is invalid");
      where += ` and (created_at, id) < ($${values.push(at)}::timestamptz, $${values.push(before)}::uuid)`;
    }
    const text = `select ${COLUMNS} from products where ${where} order by created_at desc, id desc limit $1`;
    // A search is planned for its own pattern; all other statements are prepared.
    const rows = await reads.query<ProductRow>(q === undefined ? { name: `list${values.length}`, text } : { text }, values);
    const last = rows.length > limit ? rows[limit - 1] : undefined;
    return {
      items: rows.slice(0, limit).map(present),
      next_cursor: last === undefined ? null : Buffer.from(`${last.created_at} ${last.id}`).toString("base64url"),
    };
  },
);

/** Name, price and stock of the products of an order: `?ids=…,…`. */
app.get<{ Querystring: { ids: string } }>("/quote", { schema: { response: { 200: QUOTES } } }, (request) => {
  const ids = request.query.ids.split(",");
  return ids.length === 1 ? reads.query<Quote>(QUOTE_ONE, ids) : reads.query<Quote>(QUOTE, [ids]);
});

app.get("/health", async () => {
  await reads.query({ text: "select 1" }, []);
  return { status: "ok" };
});

const queue = env("QUEUE_PREFIX");
const bus = new Bus(env("AMQP_URL"), { own: `${queue}.order.created`, to: `${queue}.stock.settled` }, 64, async (message) => {
  const { order_id, lines } = message as OrderCreated;
  const products = lines.map((line) => line.product_id);
  const units = lines.map((line) => line.quantity);
  type Stored = { state: StockSettled["outcome"]; shortages: Shortage[] };
  const [fresh] = await writes.query<Stored>(RESERVE, [order_id, products, units, JSON.stringify(lines)]);
  const [stored] = fresh === undefined ? await writes.query<Stored>(STORED, [order_id]) : [fresh];
  if (stored === undefined) throw new Error(`order ${order_id} has no reservation`);
  await bus.publish(JSON.stringify({ order_id, outcome: stored.state, shortages: stored.shortages } satisfies StockSettled));
});

void (async () => {
  await Promise.all([reads.start(), writes.start()]);
  await bus.start();
  await serve(app, async () => {
    await bus.stop();
    await Promise.all([reads.stop(), writes.stop()]);
  });
})();
