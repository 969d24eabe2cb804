import { createHash } from "node:crypto";
import { compareIds } from "../../contracts/contract";
import { describeShortages, NEW_ORDER, ORDER, type Line, type OrderCreated, type Quote, type StockSettled } from "./schema";
import { Bus, Database, env, fromCents, Refusal, serve, server, Upstream } from "./shared";

interface OrderRow {
  id: string;
  user_id: string;
  request_hash: string;
  status: string;
  total_cents: number;
  reason: string | null;
  version: number;
  created_at: string;
  updated_at: string;
  lines: { product_id: string; name: string; unit_price_cents: number; quantity: number }[];
  history: { status: string; at: string }[];
}

const SELECT = `
  select o.id, o.user_id, o.request_hash, o.status, o.total_cents, o.reason, o.version, o.created_at, o.updated_at,
    (select json_agg(json_build_object('product_id', l.product_id, 'name', l.name, 'unit_price_cents', l.unit_price_cents, 'quantity', l.quantity)
       order by l.product_id) from order_lines l where l.order_id = o.id) as lines,
    (select json_agg(json_build_object('status', h.status, 'at', h.at) order by h.id) from order_history h where h.order_id = o.id) as history
  from orders o`;
const GET = { name: "get", text: `${SELECT} where o.id = $1` };
const BY_KEY = { name: "by_key", text: `${SELECT} where o.user_id = $1 and o.idempotency_key = $2` };

/** Order, lines, history and outbox row in one statement, so atomically. The event is published at once; the sweep republishes it after 5 s. */
const INSERT = {
  name: "insert",
  text: `
  with created as (
    insert into orders (user_id, idempotency_key, request_hash, total_cents) values ($1, $2, $3, $4)
    on conflict (user_id, idempotency_key) do nothing returning id, created_at
  ), lines as (
    insert into order_lines (order_id, product_id, name, unit_price_cents, quantity)
    select created.id, l.* from created cross join unnest($5::uuid[], $6::text[], $7::bigint[], $8::bigint[]) as l
  ), history as (
    insert into order_history (order_id, status, at) select id, 'PENDING', created_at from created
  ), message as (
    insert into outbox (order_id, event, payload, attempts, next_attempt_at)
    select id, 'order.created', $9, 1, now() + interval '5 s' from created
  )
  select id, created_at from created`,
};

/** Applies a reply of products: status, history and outbox row in one statement. A repeated reply changes nothing. */
const SETTLE = {
  name: "settle",
  text: `
  with changed as (
    update orders set status = $2, reason = $3, version = version + 1, updated_at = greatest(clock_timestamp(), updated_at)
    where id = $1 and status = 'PENDING' returning id, status, updated_at
  ), history as (
    insert into order_history (order_id, status, at) select id, status, updated_at from changed
  )
  update outbox set state = 'SETTLED', settled_at = now() where order_id = $1 and event = 'order.created' and state <> 'SETTLED'`,
};

/** Claims overdue outbox rows, 128 at a time, with a longer back-off after each attempt. */
const SWEEP = {
  name: "sweep",
  text: `
  update outbox set attempts = attempts + 1, next_attempt_at = now() + make_interval(secs => least(60, 5 * power(2, least(attempts, 20))))
  where id in (
    select id from outbox where state = 'PENDING' and attempts > 0 and next_attempt_at <= now()
    order by next_attempt_at limit 128 for update skip locked)
  returning order_id, payload`,
};

const present = (row: OrderRow) => ({
  id: row.id,
  user_id: row.user_id,
  status: row.status,
  total_price: fromCents(row.total_cents),
  items: row.lines.map((l) => ({
    product_id: l.product_id,
    name: l.name,
    unit_price: fromCents(l.unit_price_cents),
    quantity: l.quantity,
  })),
  reason: row.reason,
  history: row.history.map((h) => ({ status: h.status, at: new Date(h.at).toISOString() })),
  created_at: row.created_at,
  updated_at: row.updated_at,
});

/** The order as in the first response, whatever its status is now. */
const presentAsCreated = (row: OrderRow) =>
  present({ ...row, status: "PENDING", reason: null, updated_at: row.created_at, history: [{ status: "PENDING", at: row.created_at }] });

const url = env("DATABASE_URL");
const db = new Database(url, 8);
const settling = new Database(url, 4);
const products = new Upstream(env("PRODUCTS_URL"), 8, 8);
const app = server();

async function quote(lines: readonly Line[]): Promise<Map<string, Quote>> {
  const answer = await products.request("GET", `/quote?ids=${lines.map((line) => line.product_id).join()}`);
  if (answer.status !== 200) throw new Refusal(503, "SERVICE_UNAVAILABLE", "the catalogue is unavailable");
  const quotes = new Map((JSON.parse(answer.body.toString()) as Quote[]).map((q) => [q.id, q]));
  const unknown = lines.filter((line) => !quotes.has(line.product_id)).map((line) => line.product_id);
  if (unknown.length > 0) throw new Refusal(404, "PRODUCT_NOT_FOUND", `there is no product ${unknown.join(", ")}`);
  const shortages = lines
    .map(({ product_id, quantity }) => ({ product_id, wanted: quantity, available: quotes.get(product_id)?.quantity ?? 0 }))
    .filter((s) => s.available < s.wanted);
  if (shortages.length > 0) throw new Refusal(409, "INSUFFICIENT_STOCK", describeShortages(shortages));
  return quotes;
}

/** The order that was created with this key, if any. */
async function replay(userId: string, key: string, hash: string): Promise<OrderRow | undefined> {
  const [row] = await db.query<OrderRow>(BY_KEY, [userId, key]);
  if (row !== undefined && row.request_hash !== hash)
    throw new Refusal(422, "IDEMPOTENCY_KEY_REUSED", "this key was used before with a different body");
  return row;
}

interface Draft {
  userId: string;
  key: string;
  hash: string;
  /** Merged and sorted by product. */
  lines: Line[];
}

/** Gets quotes, inserts the order and publishes its event. @returns undefined if the key was used before */
async function place({ userId, key, hash, lines }: Draft): Promise<OrderRow | undefined> {
  const quotes = await quote(lines);
  const placed = lines.flatMap(({ product_id, quantity }) => {
    const found = quotes.get(product_id);
    return found === undefined ? [] : { product_id, name: found.name, unit_price_cents: found.price_cents, quantity };
  });
  const total = placed.reduce((sum, line) => sum + line.unit_price_cents * line.quantity, 0);
  const json = JSON.stringify(lines);
  const [row] = await db.query<{ id: string; created_at: string }>(INSERT, [
    userId,
    key,
    hash,
    total,
    placed.map((line) => line.product_id),
    placed.map((line) => line.name),
    placed.map((line) => line.unit_price_cents),
    placed.map((line) => line.quantity),
    `{"lines":${json}}`,
  ]);
  if (row === undefined) return undefined;
  bus.publish(`{"order_id":"${row.id}","lines":${json}}`).catch(() => undefined); // the sweep republishes it
  return {
    ...row,
    user_id: userId,
    request_hash: hash,
    status: "PENDING",
    total_cents: total,
    reason: null,
    version: 1,
    updated_at: row.created_at,
    lines: placed,
    history: [],
  };
}

app.post<{ Body: { items: Line[] } }>("/orders", { schema: { body: NEW_ORDER, response: { 201: ORDER } } }, async (request, reply) => {
  const units = new Map<string, number>();
  for (const item of request.body.items) {
    const id = item.product_id.toLowerCase();
    units.set(id, (units.get(id) ?? 0) + item.quantity);
  }
  const lines = [...units]
    .map(([product_id, quantity]) => ({ product_id, quantity }))
    .sort((a, b) => compareIds(a.product_id, b.product_id));
  const userId = String(request.headers["x-user-id"]);
  const key = String(request.headers["idempotency-key"]);
  const hash = createHash("sha256").update(JSON.stringify(lines)).digest("base64url");

  let twin = await replay(userId, key, hash);
  let order: OrderRow | undefined;
  if (twin === undefined) {
    try {
      order = await place({ userId, key, hash, lines });
      if (order === undefined) twin = await replay(userId, key, hash);
    } catch (refusal) {
      twin = await replay(userId, key, hash); // it may have been committed meanwhile
      if (twin === undefined) throw refusal;
    }
  }
  const answer = order ?? twin;
  if (answer === undefined) throw new Error("a key was taken, but its order was not found");
  if (twin !== undefined) reply.header("idempotent-replayed", "true");
  reply.code(201).header("etag", '"1"').header("location", `/orders/${answer.id}`);
  return presentAsCreated(answer);
});

app.get<{ Params: { id: string } }>("/orders/:id", { schema: { response: { 200: ORDER } } }, async (request, reply) => {
  const [row] = await db.query<OrderRow>(GET, [request.params.id]);
  if (row === undefined || row.user_id !== request.headers["x-user-id"])
    throw new Refusal(404, "ORDER_NOT_FOUND", "there is no such order");
  reply.header("etag", `"${row.version}"`);
  return present(row);
});

app.get("/health", async () => {
  await db.query({ text: "select 1" }, []);
  return { status: "ok" };
});

const queue = env("QUEUE_PREFIX");
const bus = new Bus(env("AMQP_URL"), { own: `${queue}.stock.settled`, to: `${queue}.order.created` }, 64, async (message) => {
  const { order_id, outcome, shortages } = message as StockSettled;
  const reserved = outcome === "RESERVED";
  await settling.query(SETTLE, [order_id, reserved ? "CONFIRMED" : "REJECTED", reserved ? null : describeShortages(shortages)]);
});

async function sweep(): Promise<void> {
  const rows = await settling.query<{ order_id: string; payload: Omit<OrderCreated, "order_id"> }>(SWEEP, []);
  await Promise.all(rows.map(({ order_id, payload }) => bus.publish(JSON.stringify({ order_id, ...payload }))));
  if (rows.length === 128) await sweep();
}

void (async () => {
  await Promise.all([db.start(), settling.start()]);
  await bus.start();
  let sweeping = false;
  const timer = setInterval(() => {
    if (sweeping) return;
    sweeping = true;
    void sweep()
      .catch(() => undefined)
      .finally(() => (sweeping = false));
  }, 1_000);
  await serve(app, async () => {
    clearInterval(timer);
    await bus.stop();
    await Promise.all([db.stop(), settling.stop()]);
    await products.pool.close();
  });
})();
