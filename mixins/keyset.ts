import { problem } from "../broker/errors";

/**
 * Keyset paging: a cursor holds the sort values of the last row, so a page costs the same wherever it lies. It names
 * its list and sort, and is refused elsewhere.
 */
export function encodeCursor(list: string, values: readonly (string | number)[]): string {
  return Buffer.from(JSON.stringify([list, ...values])).toString("base64url");
}

/**
 * @param types the `typeof` of each value
 * @throws BAD_REQUEST for what is no cursor, or one of another list or sort
 */
export function decodeCursor(list: string, cursor: string, types: readonly ("string" | "number")[]): (string | number)[] {
  const [of, ...values] = parse(cursor);
  const fits = of === list && values.length === types.length && values.every((value, i) => isKey(value) && typeof value === types[i]);
  if (!fits) throw problem("BAD_REQUEST", "the cursor can't be read, or is of another list or sort");
  return values.filter(isKey);
}

const isKey = (value: unknown): value is string | number =>
  typeof value === "string" ? !value.includes("\0") : typeof value === "number" && Number.isSafeInteger(value);

function parse(cursor: string): unknown[] {
  try {
    const value: unknown = JSON.parse(Buffer.from(cursor, "base64url").toString());
    return Array.isArray(value) ? value : [];
  } catch {
    return []; // no JSON: no cursor
  }
}

/** Cuts a list that was read with one row more than asked for; that row says whether there is a next page. */
export function page<T, U>(
  rows: readonly T[],
  limit: number,
  present: (row: T) => U,
  cursorOf: (last: T) => string,
): { items: U[]; next_cursor: string | null } {
  const items = rows.slice(0, limit);
  const last = items.at(-1);
  return { items: items.map(present), next_cursor: rows.length > limit && last !== undefined ? cursorOf(last) : null };
}
