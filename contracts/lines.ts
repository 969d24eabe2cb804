import { createHash } from "node:crypto";
import { compareIds } from "./contract";
import type { Line } from "./orders";

/**
 * What an order and its reservation are compared by: SHA-256 of their lines, sorted by product, in base64url.
 * Both services compute it from what they have stored.
 */
export const digestOf = (lines: readonly Line[]): string =>
  createHash("sha256")
    .update(
      [...lines]
        .sort((a, b) => compareIds(a.product_id, b.product_id))
        .map(({ product_id, quantity }) => `${product_id}:${quantity}`)
        .join(),
    )
    .digest("base64url");

/** Of a reservation that was released before it was asked for. */
export const NO_LINES = digestOf([]);
