import { PAGE_BYTES, type Params } from "../../contracts/contract";
import { fromCents, toCents } from "../../contracts/money";
import type * as contract from "../../contracts/products";
import type { Product, Quote, Tag } from "../../contracts/products";
import type { Database, Query, Reader } from "../../mixins/database";
import { decodeCursor, encodeCursor, UNCUT_ROWS, page, timeOf, within } from "../../mixins/keyset";

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
  edits: number;
  created_at: Date;
  updated_at: Date;
}

const COLUMNS = "id, name, description, category, sku, price_cents, quantity, seller_id, version, edits, created_at, updated_at";
/** The bytes of a product's columns that may be long. */
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
    edits: row.edits,
  };
}

/** Adds a product to the catalogue; its initial stock, unless 0, is the first entry of its ledger. */
export async function insertProduct(query: Query, product: Params<typeof contract.create>, sellerId: string): Promise<Product> {
  const [row] = await query<ProductRow>(
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
  if (row === undefined) throw new Error("the insert returned no product");
  return present(row);
}

interface Adjustment {
  id: string;
  /** If given, the product must have one of these ETags. */
  tags: readonly Tag[] | undefined;
  delta: number;
  reason: string;
  /** Of all units, including those reserved for orders. */
  max: number;
}

/** Adds or removes units, with a ledger entry. @returns undefined if there is no such product, or the quantity would be out of range */
export async function adjustStock(query: Query, { id, tags, delta, reason, max }: Adjustment): Promise<Product | undefined> {
  const [row] = await query<ProductRow>(
    `with changed as (
       update products set quantity = quantity + $2, version = version + 1, updated_at = now()
       where id = $1 and archived_at is null and quantity + $2 >= 0 and quantity + reserved + $2 <= $4
         and ($5::text[] is null or edits || '-' || version = any($5))
       returning ${COLUMNS}
     ), ledger as (
       insert into stock_movements (product_id, kind, delta, balance, reason)
       select id, 'ADJUSTMENT', $2, quantity, $3 from changed
     )
     select ${COLUMNS} from changed`,
    [id, delta, reason, max, tags?.map(({ edits, version }) => `${edits}-${version}`) ?? null],
  );
  return row && present(row);
}

/** @returns those that exist, in no particular order */
export function findProducts(query: Query, ids: readonly string[]): Promise<ProductRow[]> {
  return query<ProductRow>(`select ${COLUMNS} from products where id = any($1) and archived_at is null`, [ids]);
}

/** @returns those that exist, in no particular order */
export function quoteProducts(db: Database, ids: readonly string[]): Promise<Quote[]> {
  return db.query<Quote>("select id, name, price_cents, quantity from products where id = any($1) and archived_at is null", [ids]);
}

/**
 * For each sort: its name in cursors, the expressions that it compares, the type of its cursor value, and how to bind one and get one from a
 * row. A cursor of version 0.2.0 with the sort `name` is a position in the order of bytes, so it must not be accepted here.
 */
const SORT_KEYS = {
  name: {
    cursor: "name_sort_key",
    sql: ["name_sort_key(name)", "name"],
    bound: (value: string) => [`name_sort_key(${value})`, value],
    kind: "text",
    of: (row: ProductRow) => row.name,
  },
  price: {
    cursor: "price",
    sql: ["price_cents"],
    bound: (value: string) => [`${value}::bigint`],
    kind: "number",
    of: (row: ProductRow) => row.price_cents,
  },
  created_at: {
    cursor: "created_at",
    sql: ["created_at"],
    bound: (value: string) => [timeOf(value)],
    kind: "time",
    of: (row: ProductRow) => row.created_at.getTime(),
  },
} as const;

/** The searched text, as in the indexes. It is short, since comparing a repetitive text costs its length times that of the query. */
const TEXT = "lower(left(name || ' ' || coalesce(left(description, 300), ''), 300))";

/** Reads a small table instead of all products, and has no index that every sale would have to change. */
const SOLD_OUT = "id in (select product_id from sold_out_products)";

/** How many products are scanned, in the order of the list, per match that a page needs: enough if 2 % of them match. */
const SCANNED_PER_MATCH = 50;
/** pg_trgm needs three letters or digits in a row. */
const TRIGRAM = /[\p{L}\p{N}]{3}/u;

/**
 * One page of the catalogue. The statement is composed of fixed fragments; every value is bound. A seller, or else a category, is written
 * as a range and leads the sort order, so that only the index that begins with it provides that order. Otherwise the planner might scan all
 * products until it has found enough of these.
 */
export async function listProducts(
  db: Reader,
  params: Params<typeof contract.list>,
): Promise<{ items: Product[]; next_cursor: string | null }> {
  const { sort = "created_at", limit = 20 } = params;
  const descending = sort.startsWith("-");
  const key = sort === "name" || sort === "-name" ? "name" : sort === "price" || sort === "-price" ? "price" : "created_at";
  const column = SORT_KEYS[key];
  const direction = descending ? "desc" : "asc";
  const list = `products:${descending ? "-" : ""}${column.cursor}`;

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
  keys.push(...column.sql, "id");
  if (params.category !== undefined && lead !== "category") where.push(`category = ${bind(params.category)}`);
  if (params.min_price !== undefined) where.push(`price_cents >= ${bind(toCents(params.min_price))}`);
  if (params.max_price !== undefined) where.push(`price_cents <= ${bind(toCents(params.max_price))}`);
  if (params.in_stock !== undefined) where.push(params.in_stock ? "not sold_out" : SOLD_OUT);
  // Without a filter the plan is the same for all values; with one it depends on how many products match.
  const run = where.length === 1 && params.q === undefined ? db.query : db.adhoc;
  if (params.cursor !== undefined) {
    const [value, id] = decodeCursor(list, params.cursor, [column.kind, "id"]);
    bounds.push(...column.bound(bind(value)), `${bind(id)}::uuid`);
    where.push(`(${keys.join()}) ${descending ? "<" : ">"} (${bounds.join()})`);
  }
  const order = keys.map((key) => `${key} ${direction}`).join();
  const maxRows = bind(limit + 1);
  const [sortKey] = column.sql;
  // A long page is sorted again to sum up its sizes. The sort key of a name takes up to half a millisecond, so it is then a column.
  const isKept = key === "name" && limit > UNCUT_ROWS;
  const byKeys = isKept
    ? { kept: `${COLUMNS}, ${sortKey} as sort_key`, columns: `${COLUMNS}, sort_key`, by: order, again: order.replace(sortKey, "sort_key") }
    : { kept: COLUMNS, columns: COLUMNS, by: order, again: order };
  const select = (from: string, conditions: readonly string[], { kept, columns, by, again } = byKeys) => {
    const rows = `select ${kept} from ${from} where ${conditions.join(" and ")} order by ${by} limit ${maxRows}`;
    return run<ProductRow>(within(PAGE_BYTES, { columns, order: again, select: rows, bytes: `(${TEXT_BYTES})`, rows: limit }), values);
  };
  const give = (rows: ProductRow[]) => page(rows, limit, present, (last) => encodeCursor(list, [column.of(last), last.id]));

  if (params.q === undefined) return give(await select("products", where));
  const matches = `${TEXT} like lower(${bind(`%${escapeLike(params.q)}%`)} collate "C")`; // the collation of the name, and so of the text
  // The first products contain most frequent texts. Rarer ones are found by their index, and all matches are sorted: `offset 0` keeps the
  // planner from scanning products in the order of the list until it has found enough, which ends late if one seller's products come first.
  const scanned = `${SCANNED_PER_MATCH} * ${maxRows}`;
  const first = `(select ${COLUMNS} from products where ${where.join(" and ")} order by ${order} limit ${scanned}) as first`;
  // Numbered in the order of the index, so that no sort key of a name is computed.
  const numbered = `(select ${COLUMNS}, row_number() over () as place from ${first}) as numbered`;
  const byPlace = { kept: `${COLUMNS}, place`, columns: `${COLUMNS}, place`, by: "place", again: "place" };
  const inFirst = give(key === "name" ? await select(numbered, [matches], byPlace) : await select(first, [matches]));
  if (inFirst.next_cursor !== null) return inFirst;
  const indexed = TRIGRAM.test(params.q) ? matches : `${matches} and letter_pairs(${TEXT}) @> letter_pairs(${bind(params.q)})`;
  const found = `(select ${COLUMNS} from products where ${where.join(" and ")} and ${indexed} offset 0) as found`;
  // Evaluated first, and only once: if the list ends among the first products, all matches are found already. Without any match there, the
  // text is rare, and looking it up costs no more than this check.
  const goesOn =
    inFirst.items.length === 0
      ? "true"
      : `exists (select from products where ${where.join(" and ")} order by ${order} offset ${scanned} limit 1)`;
  const all = give(await select(found, [goesOn]));
  return all.items.length > 0 ? all : inFirst;
}

/** Makes `%` and `_` in a search literal. */
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
