import { createHash } from "node:crypto";

/** SHA-256 of a value as JSON with sorted keys, in base64url: equal values have equal digests, whatever the order of their keys. */
export function digestOfJson(value: unknown): string {
  return createHash("sha256").update(JSON.stringify(value, sortKeys)).digest("base64url");
}

const sortKeys = (_key: string, value: unknown): unknown =>
  typeof value === "object" && value !== null && !Array.isArray(value)
    ? Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)))
    : value;
