/*
 * The size of values as JSON, in bytes. A limit on the number of items alone would let one client fill messages, sockets and memory: an
 * item may be a hundred bytes or a hundred thousand.
 */

/** Longest JSON of a number, a boolean or null. */
const SCALAR_BYTES = 25;

/** An upper bound for the JSON of plain data, without serializing it: a UTF-16 code unit takes at most six bytes, escaped. */
export function maxJsonBytes(value: unknown): number {
  if (typeof value === "string") return 6 * value.length + 2;
  if (typeof value !== "object" || value === null) return SCALAR_BYTES;
  let bytes = 2;
  for (const [key, field] of Object.entries(value)) bytes += 6 * key.length + 4 + maxJsonBytes(field);
  return bytes;
}

/**
 * How many of the first values fit into `limitBytes` of JSON, including the commas between them; at least one. If the upper bound fits, as
 * it nearly always does, nothing is serialized.
 */
export function countWithin(values: readonly unknown[], limitBytes: number): number {
  let maxBytes = 0;
  for (const value of values) maxBytes += maxJsonBytes(value) + 1;
  if (maxBytes <= limitBytes) return values.length;
  let bytes = 0;
  for (const [i, value] of values.entries()) {
    bytes += Buffer.byteLength(JSON.stringify(value)) + 1;
    if (bytes > limitBytes) return Math.max(i, 1);
  }
  return values.length;
}
