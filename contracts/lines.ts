import { createHash } from "node:crypto";
import { compareIds } from "./contract";
import type { Line } from "./orders";

/** `product:quantity`, by product, with commas between: the same for every order of the same lines. */
export const textOf = (lines: readonly Line[]): string =>
  [...lines]
    .sort((a, b) => compareIds(a.product_id, b.product_id))
    .map(({ product_id, quantity }) => `${product_id}:${quantity}`)
    .join();

/**
 * What an order and its reservation are compared by: SHA-256 of `textOf` their lines, in base64url. Both services compute it from what
 * they have stored.
 */
export const digestOf = (lines: readonly Line[]): string => createHash("sha256").update(textOf(lines)).digest("base64url");

/** Of a reservation that was released before it was asked for. */
export const NO_LINES = digestOf([]);
