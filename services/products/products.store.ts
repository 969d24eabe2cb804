import type { Params } from "../../contracts/contract";
import { fromCents, toCents } from "../../contracts/money";
import type * as contract from "../../contracts/products";
import type { Product, Quote } from "../../contracts/products";
import type { Database } from "../../mixins/database";
import { decodeCursor, encodeCursor, page } from "../../mixins/keyset";

export interface ProductRow {
  id: number;
  name: string;
  description: string | null;
  category: string | null;
  sku: string | null;
  price_cents: number;
  quantity: number;
  seller_id: number;
  version: number;
  created_at: Date;
  updated_at: Date;
}

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
export async function insertProduct(db: Database, product: Params<typeof contract.create>, sellerId: number): Promise<Product> {
  const [row] = await db.query<ProductRow>(
    `with created as (
       insert into products (name, description, category, sku, price_cents, quantity, seller_id)
       values ($1, $2, $3, $4, $5, $6, $7) returning *
     ), ledger as (
       insert into stock_movements (product_id, kind, delta, balance, reason)
       select id, 'INITIAL', quantity, quantity, 'initial stock' from created where quantity > 0
     )
     select * from created`,
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
export async function adjustStock(db: Database, id: number, delta: number, reason: string, max: number): Promise<Product | undefined> {
  const [row] = await db.query<ProductRow>(
    `with changed as (
       update products set quantity = quantity + $2, version = version + 1, updated_at = now()
       where id = $1 and archived_at is null and quantity + $2 >= 0 and quantity + reserved + $2 <= $4
       returning *
     ), ledger as (
       insert into stock_movements (product_id, kind, delta, balance, reason)
       select id, 'ADJUSTMENT', $2, quantity, $3 from changed
     )
     select * from changed`,
    [id, delta, reason, max],
  );
  return row && present(row);
}

/** @returns those that are there, in no order */
export function findProducts(db: Database, ids: readonly number[]): Promise<ProductRow[]> {
  return db.query<ProductRow>(
    `select id, name, description, category, sku, price_cents, quantity, seller_id, version, created_at, updated_at
     from products where id = any($1) and archived_at is null`,
    [ids],
  );
}

export function quoteProducts(db: Database, ids: readonly number[]): Promise<Quote[]> {
  return db.query<Quote>("select id, name, price_cents, quantity from products where id = any($1) and archived_at is null", [ids]);
}

/** The column that each sort compares, the type of its cursor, and how a row's value gets into one. */
const SORT_COLUMNS = {
  name: { sql: "name", bound: (value: string) => value, type: "string", of: (row: ProductRow) => row.name },
  price: { sql: "price_cents", bound: (value: string) => `${value}::bigint`, type: "number", of: (row: ProductRow) => row.price_cents },
  created_at: {
    sql: "created_at",
    bound: (value: string) => `to_timestamp(${value}::float8 / 1000)`,
    type: "number",
    of: (row: ProductRow) => row.created_at.getTime(),
  },
} as const;

/** One page of the catalogue. The statement is put together from fixed fragments; every value is bound. */
export async function listProducts(
  db: Database,
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
  if (params.q !== undefined) where.push(`(name || ' ' || coalesce(description, '')) ilike ${bind(`%${escapeLike(params.q)}%`)}`);
  if (params.category !== undefined) where.push(`category = ${bind(params.category)}`);
  if (params.seller_id !== undefined) where.push(`seller_id = ${bind(params.seller_id)}`);
  if (params.min_price !== undefined) where.push(`price_cents >= ${bind(toCents(params.min_price))}`);
  if (params.max_price !== undefined) where.push(`price_cents <= ${bind(toCents(params.max_price))}`);
  if (params.in_stock !== undefined) where.push(params.in_stock ? "quantity > 0" : "quantity = 0");
  if (params.cursor !== undefined) {
    const [value, id] = decodeCursor(list, params.cursor, [column.type, "number"]);
    where.push(`(${column.sql}, id) ${descending ? "<" : ">"} (${column.bound(bind(value))}, ${bind(id)}::bigint)`);
  }
  const rows = await db.adhoc<ProductRow>(
    `select * from products where ${where.join(" and ")} order by ${column.sql} ${direction}, id ${direction} limit ${bind(limit + 1)}`,
    values,
  );
  return page(rows, limit, present, (last) => encodeCursor(list, [column.of(last), last.id]));
}

/** `%` and `_` in a search mean themselves. */
const escapeLike = (text: string): string => text.replace(/[\\%_]/g, "\\$&");

interface MovementRow {
  id: number;
  delta: number;
  balance: number;
  reason: string;
  order_id: number | null;
  created_at: Date;
}

/** One page of a product's ledger, newest first. */
export async function listMovements(db: Database, productId: number, limit: number, cursor: string | undefined) {
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
