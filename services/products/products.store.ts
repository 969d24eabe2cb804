import { PAGE_BYTES, type Params } from "../../contracts/contract";
import { fromCents, toCents } from "../../contracts/money";
import type * as contract from "../../contracts/products";
import type { Product, Quote } from "../../contracts/products";
import type { Database, Reader } from "../../mixins/database";
import { decodeCursor, encodeCursor, page, timeOf, within } from "../../mixins/keyset";

export interface ProductRow {
  id: string;
  name: string;
  description: string | null;
  category: string | null;
  sku: string | null;
  price_cents: number;
  quantity: number;
  seller_id: string;
  version: number;
  created_at: Date;
  updated_at: Date;
}

const COLUMNS = "id, name, description, category, sku, price_cents, quantity, seller_id, version, created_at, updated_at";
/** What of a product may be long. */
const TEXT_BYTES = "octet_length(name) + coalesce(octet_length(description), 0) + coalesce(octet_length(category), 0)";

export function present(row: ProductRow): Product {
  return {
    id: row.id,
    name: row.name,
    price: fromCents(row.price_cents),
    quantity: row.quantity,
    description: row.description,
    category: row.category,
    sku: row.sku,
    seller_id: row.seller_id,
    created_at: row.created_at.toISOString(),
    updated_at: row.updated_at.toISOString(),
    version: row.version,
  };
}

/** Puts a product into the catalogue; its first stock is the first line of its ledger. */
export async function insertProduct(db: Database, product: Params<typeof contract.create>, sellerId: string): Promise<Product> {
  const [row] = await db.query<ProductRow>(
    `with created as (
       insert into products (name, description, category, sku, price_cents, quantity, seller_id)
       values ($1, $2, $3, $4, $5, $6, $7) returning ${COLUMNS}
     ), ledger as (
       insert into stock_movements (product_id, kind, delta, balance, reason)
       select id, 'INITIAL', quantity, quantity, 'initial stock' from created where quantity > 0
     )
     select ${COLUMNS} from created`,
    [
      product.name,
      product.description ?? null,
      product.category ?? null,
      product.sku ?? null,
      toCents(product.price),
      product.quantity,
      sellerId,
    ],
  );
  if (row === undefined) throw new Error("the database gave no product back");
  return present(row);
}

/** Adds or takes units, and says so in the ledger. @returns undefined where the product or the bounds forbid it */
export async function adjustStock(db: Database, id: string, delta: number, reason: string, max: number): Promise<Product | undefined> {
  const [row] = await db.query<ProductRow>(
    `with changed as (
       update products set quantity = quantity + $2, version = version + 1, updated_at = now()
       where id = $1 and archived_at is null and quantity + $2 >= 0 and quantity + reserved + $2 <= $4
       returning ${COLUMNS}
     ), ledger as (
       insert into stock_movements (product_id, kind, delta, balance, reason)
       select id, 'ADJUSTMENT', $2, quantity, $3 from changed
     )
     select ${COLUMNS} from changed`,
    [id, delta, reason, max],
  );
  return row && present(row);
}

/** @returns those that are there, in no order */
export function findProducts(db: Database, ids: readonly string[]): Promise<ProductRow[]> {
  return db.query<ProductRow>(`select ${COLUMNS} from products where id = any($1) and archived_at is null`, [ids]);
}

/** @returns those that are there, in no order */
export function quoteProducts(db: Database, ids: readonly string[]): Promise<Quote[]> {
  return db.query<Quote>("select id, name, price_cents, quantity from products where id = any($1) and archived_at is null", [ids]);
}

/** The column that each sort compares, the kind of its cursor, and how a row's value gets into one. */
const SORT_COLUMNS = {
  name: { sql: "name", bound: (value: string) => value, kind: "text", of: (row: ProductRow) => row.name },
  price: { sql: "price_cents", bound: (value: string) => `${value}::bigint`, kind: "number", of: (row: ProductRow) => row.price_cents },
  created_at: {
    sql: "created_at",
    bound: timeOf,
    kind: "time",
    of: (row: ProductRow) => row.created_at.getTime(),
  },
} as const;

/** What is searched, as the indexes have it: short, since comparing a repetitive text costs its length times that of the query. */
const TEXT = "lower(left(name || ' ' || coalesce(left(description, 300), ''), 300))";

/** How many products are looked through, in the order of the list, for a text that trigrams can't find. */
const LOOKED_THROUGH = 500;
/** What pg_trgm needs: three letters or digits in a row. */
const TRIGRAM = /[\p{L}\p{N}]{3}/u;

/**
 * One page of the catalogue. The statement is put together from fixed fragments; every value is bound. A seller, or else
 * a category, is put as a range and leads the order, so that only the index that begins with it gives that order: else
 * the planner might walk through everybody's products until it has met enough of these.
 */
export async function listProducts(
  db: Reader,
  params: Params<typeof contract.list>,
): Promise<{ items: Product[]; next_cursor: string | null }> {
  const { sort = "created_at", limit = 20 } = params;
  const descending = sort.startsWith("-");
  const key = sort === "name" || sort === "-name" ? "name" : sort === "price" || sort === "-price" ? "price" : "created_at";
  const column = SORT_COLUMNS[key];
  const direction = descending ? "desc" : "asc";
  const list = `products:${sort}`;

  const values: unknown[] = [];
  const bind = (value: unknown): string => `$${values.push(value)}`;
  const where = ["archived_at is null"];
  const keys: string[] = [];
  const bounds: string[] = [];
  const lead = params.seller_id !== undefined ? "seller_id" : params.category !== undefined ? "category" : undefined;
  if (lead !== undefined) {
    const bound = bind(params[lead]);
    where.push(`${lead} >= ${bound}`, `${lead} <= ${bound}`);
    keys.push(lead);
    bounds.push(bound);
  }
  keys.push(column.sql, "id");
  if (params.category !== undefined && lead !== "category") where.push(`category = ${bind(params.category)}`);
  if (params.min_price !== undefined) where.push(`price_cents >= ${bind(toCents(params.min_price))}`);
  if (params.max_price !== undefined) where.push(`price_cents <= ${bind(toCents(params.max_price))}`);
  if (params.in_stock !== undefined) where.push(params.in_stock ? "not sold_out" : "sold_out");
  // Without a filter the plan is the same for all values; with one it depends on how many products pass.
  const run = where.length === 1 && params.q === undefined ? db.query : db.adhoc;
  if (params.cursor !== undefined) {
    const [value, id] = decodeCursor(list, params.cursor, [column.kind, "id"]);
    bounds.push(column.bound(bind(value)), `${bind(id)}::uuid`);
    where.push(`(${keys.join()}) ${descending ? "<" : ">"} (${bounds.join()})`);
  }
  const order = keys.map((key) => `${key} ${direction}`).join();
  const most = bind(limit + 1);
  const select = (from: string, conditions: readonly string[]) => {
    const rows = `select ${COLUMNS} from ${from} where ${conditions.join(" and ")} order by ${order} limit ${most}`;
    return run<ProductRow>(within(PAGE_BYTES, { columns: COLUMNS, select: rows, order, bytes: `(${TEXT_BYTES})`, rows: limit }), values);
  };
  const give = (rows: ProductRow[]) => page(rows, limit, present, (last) => encodeCursor(list, [column.of(last), last.id]));

  if (params.q === undefined) return give(await select("products", where));
  const matches = `${TEXT} like lower(${bind(`%${escapeLike(params.q)}%`)} collate "C")`; // as the name, and so the text, is
  // By the index of trigrams or that of the sort, whichever is shorter: the planner knows how frequent a word is.
  if (TRIGRAM.test(params.q)) return give(await select("products", [...where, matches]));
  // Most texts of one or two characters are everywhere: the first products have them. The others have an index of their own.
  const first = `(select ${COLUMNS} from products where ${where.join(" and ")} order by ${order} limit ${LOOKED_THROUGH}) as first`;
  const rows = await select(first, [matches]);
  if (rows.length > limit) return give(rows);
  return give(await select("products", [...where, matches, `letter_pairs(${TEXT}) @> letter_pairs(${bind(params.q)})`]));
}

/** `%` and `_` in a search mean themselves. */
const escapeLike = (text: string): string => text.replace(/[\\%_]/g, "\\$&");

interface MovementRow {
  id: number;
  delta: number;
  balance: number;
  reason: string;
  order_id: string | null;
  created_at: Date;
}

/** One page of a product's ledger, newest first. */
export async function listMovements(db: Reader, productId: string, limit: number, cursor: string | undefined) {
  const list = `ledger:${productId}`;
  const [before = Number.MAX_SAFE_INTEGER] = cursor === undefined ? [] : decodeCursor(list, cursor, ["number"]);
  const rows = await db.query<MovementRow>(
    `select id, delta, balance, reason, order_id, created_at from stock_movements
     where product_id = $1 and id < $2 order by id desc limit $3`,
    [productId, before, limit + 1],
  );
  return page(
    rows,
    limit,
    (row) => ({ ...row, created_at: row.created_at.toISOString() }),
    (last) => encodeCursor(list, [last.id]),
  );
}
