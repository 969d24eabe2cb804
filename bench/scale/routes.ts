import { encodeCursor } from "../../mixins/keyset";
import { testId } from "../../testkit/ids";
import { CATEGORY, countFilled, HOT, OTHER_BUYER, RARE_PAIR, WORDS, type Actors, type Databases } from "./fill";
import type { ApiRequest } from "./http";

/** A route, or a variant of one, that is measured. */
export interface Probe {
  readonly name: string;
  /** Set if it changes data: it gets fewer requests, since it uses up the filled data. */
  readonly writes?: boolean;
  request(i: number): ApiRequest;
}

export interface Tokens {
  readonly buyer: string;
  readonly seller: string;
  readonly admin: string;
}

/** The middle of each list, as a cursor, and the ids that the requests use. */
interface Places {
  /** The number of filled products. */
  readonly products: number;
  readonly cancellable: readonly string[];
  readonly sellers: readonly string[];
  readonly buyers: readonly string[];
  readonly cursors: Readonly<
    Record<"created_at" | "-created_at" | "price" | "-price" | "name" | "-name" | "orders" | "mine" | "ledger", string>
  >;
}

/** Looks up ids and cursors at this size. */
export async function findPlaces({ products, orders }: Databases, { buyer, seller }: Actors): Promise<Places> {
  const one = async <T>(client: Databases["products"], sql: string, values: unknown[] = []): Promise<T> => {
    const { rows } = await client.query<{ it: T }>(`select (${sql}) as it`, values);
    if (rows[0] === undefined) throw new Error("a select without a table returned no row");
    return rows[0].it;
  };
  const mid = `select id from products order by id offset (select count(*) / 2 from products) limit 1`;
  const middle = await one<{ id: string; name: string; price_cents: number; at: number }>(
    products,
    `select json_build_object('id', id, 'name', name, 'price_cents', price_cents, 'at', (extract(epoch from created_at) * 1000)::bigint) from products where id = (${mid})`,
  );
  const ids = async (client: Databases["products"], sql: string, values: unknown[]): Promise<string[]> =>
    (await client.query<{ id: string }>(sql, values)).rows.map((row) => row.id);
  const middleOrder = (where: string, values: unknown[] = []): Promise<[number, string]> =>
    one(
      orders,
      `select json_build_array((extract(epoch from created_at) * 1000)::bigint, id) from orders where ${where}
       order by created_at desc, id desc offset (select count(*) / 2 from orders where ${where}) limit 1`,
      values,
    );
  const ledger = await one<string>(
    products,
    "select id from stock_movements where product_id = $1 order by id desc offset (select count(*) / 2 from stock_movements where product_id = $1) limit 1",
    [HOT],
  );
  const cursor = (sort: string, value: string | number): string => encodeCursor(`products:${sort}`, [value, middle.id]);
  return {
    products: await countFilled(products, "products"),
    cancellable: await ids(orders, "select id from orders where status = 'CONFIRMED' order by uuid_hash(id) limit 700", []),
    sellers: await ids(products, "select id from products where seller_id = $1 order by uuid_hash(id) limit 1000", [seller]),
    buyers: await ids(orders, "select id from orders where user_id = $1 order by uuid_hash(id) limit 1000", [buyer]),
    cursors: {
      created_at: cursor("created_at", middle.at),
      "-created_at": cursor("-created_at", middle.at),
      price: cursor("price", middle.price_cents),
      "-price": cursor("-price", middle.price_cents),
      name: cursor("name_sort_key", middle.name),
      "-name": cursor("-name_sort_key", middle.name),
      orders: encodeCursor("orders", await middleOrder("true")),
      mine: encodeCursor("orders", await middleOrder("user_id = $1", [buyer])),
      ledger: encodeCursor(`ledger:${HOT}`, [Number(ledger)]),
    },
  };
}

const SORTS = ["created_at", "-created_at", "price", "-price", "name", "-name"] as const;

/** Every route whose work could grow with the data, and one without database access, which shows the machine's noise. */
export function probes(places: Places, tokens: Tokens, seller: string): Probe[] {
  const spread = (i: number, n: number): number => 1 + ((i * 7_919 + 13) % n);
  const at = (of: readonly string[], i: number): string => of[i % of.length] ?? "";
  const sellable = (i: number): string => {
    const n = spread(i, places.products);
    return testId(n % 50 === 0 ? n - 1 : n);
  };
  const get = (path: string, token?: string): Probe => ({ name: `GET ${shown(path)}`, request: () => ({ method: "GET", path, token }) });
  const catalogue = (query: Record<string, string | number | boolean>): Probe =>
    get(`/products?${new URLSearchParams(entries(query)).toString()}`);
  const { admin } = tokens;
  let cancelled = 0;
  let registered = 0;

  return [
    get("/.well-known/jwks.json"),
    { name: "GET /products/:id", request: (i) => ({ method: "GET", path: `/products/${testId(spread(i, places.products))}` }) },
    ...SORTS.map((sort) => catalogue({ sort })),
    ...SORTS.map((sort) => catalogue({ sort, cursor: places.cursors[sort] })),
    ...SORTS.map((sort) => catalogue({ category: CATEGORY, sort })),
    ...SORTS.map((sort) => catalogue({ seller_id: seller, sort })),
    catalogue({ category: "category 4", seller_id: seller, sort: "price" }),
    catalogue({ min_price: 500, max_price: 600 }),
    catalogue({ min_price: 990, sort: "-created_at" }),
    catalogue({ max_price: 100, sort: "price" }),
    catalogue({ in_stock: true }),
    catalogue({ in_stock: false }),
    catalogue({ in_stock: false, sort: "price" }),
    ...Object.values(WORDS).flatMap((q) => ["created_at", "-price", "name"].map((sort) => catalogue({ q, sort }))),
    catalogue({ q: WORDS.half, sort: "price", cursor: places.cursors.price }),
    catalogue({ q: WORDS.tenth, sort: "-created_at", cursor: places.cursors["-created_at"] }),
    catalogue({ q: WORDS.tenth, category: CATEGORY, sort: "price", in_stock: true }),
    catalogue({ q: WORDS.hundredth, seller_id: seller, sort: "-created_at" }),
    catalogue({ q: "la" }),
    catalogue({ q: "la", sort: "name" }),
    catalogue({ q: RARE_PAIR }),
    catalogue({ q: RARE_PAIR, sort: "price" }),
    catalogue({ q: "no such thing at all" }),
    catalogue({ q: "?!" }),
    get(`/products/${HOT}/stock`, admin),
    get(`/products/${HOT}/stock?cursor=${places.cursors.ledger}`, admin),
    get("/me", tokens.buyer),
    get("/orders", tokens.buyer),
    get(`/orders?cursor=${places.cursors.mine}`, tokens.buyer),
    get("/orders?status=CONFIRMED", tokens.buyer),
    get("/orders?status=REJECTED", tokens.buyer),
    get("/orders?all=true", admin),
    get("/orders?all=true&status=CANCELLED", admin),
    get("/orders?all=true&status=PENDING", admin),
    get(`/orders?all=true&cursor=${places.cursors.orders}`, admin),
    get(`/orders?user_id=${OTHER_BUYER}`, admin),
    { name: "GET /orders/:id", request: (i) => ({ method: "GET", path: `/orders/${at(places.buyers, i)}`, token: tokens.buyer }) },
    get("/admin/outbox", admin),
    get("/admin/outbox?state=parked", admin),
    get("/admin/outbox?state=settled", admin),
    {
      name: "POST /orders",
      writes: true,
      request: (i) => ({
        method: "POST",
        path: "/orders",
        token: tokens.buyer,
        body: { items: [{ product_id: sellable(i), quantity: 1 }] },
      }),
    },
    {
      name: "POST /orders/:id/cancel",
      writes: true,
      request: () => ({ method: "POST", path: `/orders/${at(places.cancellable, cancelled++)}/cancel`, token: admin }),
    },
    {
      name: "POST /products",
      writes: true,
      request: (i) => ({
        method: "POST",
        path: "/products",
        token: tokens.seller,
        body: { name: `New Oak Lamp ${i}`, price: 12.5, quantity: 1_000, category: CATEGORY, description: "sato ribe kolo made vifi lune" },
      }),
    },
    {
      name: "PATCH /products/:id",
      writes: true,
      request: (i) => ({
        method: "PATCH",
        path: `/products/${at(places.sellers, i)}`,
        token: tokens.seller,
        body: { price: 10 + (i % 900) },
      }),
    },
    {
      name: "POST /products/:id/stock",
      writes: true,
      request: (i) => ({ method: "POST", path: `/products/${at(places.sellers, i)}/stock`, token: tokens.seller, body: { delta: 1 } }),
    },
    {
      name: "POST /register",
      writes: true,
      request: () => ({
        method: "POST",
        path: "/register",
        body: { email: `new-${process.pid}-${Date.now()}-${registered++}@shop.test`, password: "correct horse battery" },
      }),
    },
  ];
}

const entries = (query: Record<string, string | number | boolean>): [string, string][] =>
  Object.entries(query).map(([name, value]) => [name, String(value)]);

/** A path as shown in the report, without the values that differ between sizes. */
const shown = (path: string): string =>
  decodeURIComponent(path)
    .replace(/cursor=[^&]+/, "cursor=…")
    .replace(/(seller_id|user_id)=[^&]+/, "$1=")
    .replace(HOT, ":id")
    .replaceAll("+", " ");
