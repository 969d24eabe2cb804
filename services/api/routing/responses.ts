import type { Order } from "../../../contracts/orders";
import type { Product } from "../../../contracts/products";
import { isNotModified, type Input } from "./input";
import type { HttpResponse } from "./route";

type Headers = Record<string, string>;

export const ok = (body: unknown, headers: Headers = {}): HttpResponse<200> => ({ status: 200, body, headers });
export const created = (location: string, body: unknown, headers: Headers = {}): HttpResponse<201> => ({
  status: 201,
  body,
  headers: { Location: location, ...headers },
});
export const accepted = (): HttpResponse<202> => ({ status: 202 });
export const noContent = (): HttpResponse<204> => ({ status: 204 });

/** The parts of an ETag; only products have edits. */
interface Tagged {
  version: number;
  edits?: number;
}

/** Moves the parts of the ETag from the body into it. */
export function entity<T extends Tagged>({ version, edits, ...body }: T): { body: Omit<T, keyof Tagged>; headers: { ETag: string } } {
  return { body, headers: { ETag: edits === undefined ? `"${version}"` : `"${edits}-${version}"` } };
}

export function show(thing: Tagged, input: Pick<Input, "headers">): HttpResponse<200 | 304> {
  const { body, headers } = entity(thing);
  return isNotModified(input, headers.ETag) ? { status: 304, headers } : ok(body, headers);
}

export const showProduct = (product: Product): HttpResponse<200> => ok(entity(product).body, entity(product).headers);
export const showOrder = (order: Order): HttpResponse<200> => ok(entity(order).body, entity(order).headers);

export function list(
  path: string,
  { items, next_cursor }: { items: Tagged[]; next_cursor: string | null },
  input: Input,
): HttpResponse<200> {
  let text = texts.get(items);
  if (text === undefined) texts.set(items, (text = JSON.stringify({ items: items.map((item) => entity(item).body), next_cursor })));
  return { status: 200, text, headers: nextLink(path, input, next_cursor) };
}

/** JSON by page, for requests that share a page. */
const texts = new WeakMap<object, string>();

/** The Link header (RFC 8288) to the same list, starting at the cursor. */
export function nextLink(path: string, input: Input, cursor: string | null): Headers {
  if (cursor === null) return {};
  // Each parameter occurs once: others were refused.
  const single = Object.entries(input.query).flatMap(([name, value]): [string, string][] =>
    typeof value === "string" ? [[name, value]] : [],
  );
  const query = new URLSearchParams(single);
  query.set("cursor", cursor);
  return { Link: `<${path}?${query.toString()}>; rel="next"` };
}
