import type { IncomingMessage } from "node:http";
import { hotProductId } from "./hot-read";

const KIB = 1_024;
/** A page has 256 KiB, an order 100 lines with names of 200 characters, and a product a description of 5,000 characters. */
const LARGEST_PAGE_BYTES = 260 * KIB;
const ORDER_BYTES = 96 * KIB;
const PRODUCT_BYTES = 32 * KIB;

/** Maximum size of the response to a request, before it is known. */
export function largestBytes(req: IncomingMessage): number {
  if (hotProductId(req) !== undefined) return PRODUCT_BYTES;
  return req.method === "GET" ? LARGEST_PAGE_BYTES : ORDER_BYTES;
}
