import { createHash } from "node:crypto";
import { compareIds } from "./contract";
import type { Line } from "./orders";

/** `product:quantity`, sorted by product and joined by commas: equal for orders with the same lines. */
export const textOf = (lines: readonly Line[]): string =>
  [...lines]
    .sort((a, b) => compareIds(a.product_id, b.product_id))
    .map(({ product_id, quantity }) => `${product_id}:${quantity}`)
    .join();

/**
 * The digest by which an order and its reservation are compared: the SHA-256 of `textOf(lines)`, in base64url. Both services compute it
 * from the lines that they have stored.
 */
export const digestOf = (lines: readonly Line[]): string => createHash("sha256").update(textOf(lines)).digest("base64url");

/** The digest of a tombstone: of a reservation that was released before it was requested. */
export const NO_LINES = digestOf([]);
