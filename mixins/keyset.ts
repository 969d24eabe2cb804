import { problem } from "../broker/errors";
import { MAX_CURSOR_LENGTH, PAGE_BYTES, UUID } from "../contracts/contract";
import { countWithin } from "./bytes";

/**
 * Keyset paging: a cursor holds the sort values of the last row, so every page costs the same, however far into the list. It names its
 * list and sort, and is refused for any other.
 */
export function encodeCursor(list: string, values: readonly (string | number)[]): string {
  return Buffer.from(JSON.stringify([list, ...values])).toString("base64url");
}

/** The latest time that JavaScript can represent (ECMA-262, 21.4.1.1); PostgreSQL can, too. */
const MAX_TIME_MS = 8.64e15;

/** The longest text that a list is sorted by, in characters. */
const MAX_TEXT_LENGTH = 200;

/** Whether a value is of a kind, and the database accepts it. */
const KINDS = {
  text: (value) => typeof value === "string" && Array.from(value).length <= MAX_TEXT_LENGTH && !value.includes("\0"),
  number: (value) => Number.isSafeInteger(value),
  /** Milliseconds since 1970. */
  time: (value) => typeof value === "number" && Number.isSafeInteger(value) && value >= 0 && value <= MAX_TIME_MS,
  id: (value) => typeof value === "string" && UUID.test(value),
} as const satisfies Record<string, (value: unknown) => boolean>;

/** SQL for a bound `time`. */
export const timeOf = (bound: string): string => `to_timestamp(${bound}::float8 / 1000)`;

/**
 * @param kinds the kind of each value
 * @throws BAD_REQUEST for an invalid cursor, or one of another list or sort
 */
export function decodeCursor(list: string, cursor: string, kinds: readonly (keyof typeof KINDS)[]): unknown[] {
  const [of, ...values] = parse(cursor);
  const fits = of === list && values.length === kinds.length && kinds.every((kind, i) => KINDS[kind](values[i]));
  if (!fits) throw problem("BAD_REQUEST", "the cursor is invalid, or belongs to another list or sort order");
  return values;
}

function parse(cursor: string): unknown[] {
  try {
    const value: unknown = JSON.parse(Buffer.from(cursor, "base64url").toString());
    return Array.isArray(value) ? value : [];
  } catch {
    return []; // not JSON
  }
}

/** The JSON around the items: `{"items":[…],"next_cursor":"…"}`. */
const ENVELOPE_BYTES = MAX_CURSOR_LENGTH + 40;
/** Up to this many rows, at most two megabytes, summing up sizes would cost the usual page more than it saves. */
export const UNCUT_ROWS = 20;

/**
 * Makes a page of rows that were read with a limit one higher: the extra row shows whether there is a next page. A page ends at `limit`
 * items or at PAGE_BYTES of JSON, whichever comes first, and has at least one item.
 */
export function page<T, U>(
  rows: readonly T[],
  limit: number,
  present: (row: T) => U,
  cursorOf: (last: T) => string,
): { items: U[]; next_cursor: string | null } {
  const presented = rows.slice(0, limit).map(present);
  const items = presented.slice(0, countWithin(presented, PAGE_BYTES - ENVELOPE_BYTES));
  const last = rows[items.length - 1];
  return { items, next_cursor: rows.length > items.length && last !== undefined ? cursorOf(last) : null };
}

/**
 * Limits a select to its first `limitBytes`, so that the database does not send rows that `page` would cut.
 * @param bytes SQL for a row's size; never more than the item's JSON, or pages would become too short
 */
export function within(limitBytes: number, { columns, select, order, bytes, rows }: Cuttable): string {
  if (rows <= UNCUT_ROWS) return select;
  return `select ${columns} from (
      select ${columns}, sum(${bytes}) over (order by ${order} rows unbounded preceding) - ${bytes} as bytes_before from (${select}) as page
    ) as sized where bytes_before < ${limitBytes} order by ${order}`;
}

interface Cuttable {
  columns: string;
  select: string;
  /** The `order by` list: expressions on the columns. */
  order: string;
  bytes: string;
  /** Maximum number of rows that the select returns. */
  rows: number;
}
