import type { Order } from "../../../contracts/orders";
import type { Product } from "../../../contracts/products";
import { isNotModified, type Input } from "./input";
import type { Reply } from "./route";

type Headers = Record<string, string>;

export const ok = (body: unknown, headers: Headers = {}): Reply<200> => ({ status: 200, body, headers });
export const created = (location: string, body: unknown, headers: Headers = {}): Reply<201> => ({
  status: 201,
  body,
  headers: { Location: location, ...headers },
});
export const accepted = (): Reply<202> => ({ status: 202 });
export const noContent = (): Reply<204> => ({ status: 204 });

/** Moves the version from the body to the ETag. */
export function entity<T extends { version: number }>({ version, ...body }: T): { body: Omit<T, "version">; headers: { ETag: string } } {
  return { body, headers: { ETag: `"${version}"` } };
}

export const show = <T extends { version: number }>(thing: T, input: Pick<Input, "headers">): Reply<200 | 304> =>
  isNotModified(input, thing.version) ? { status: 304, headers: entity(thing).headers } : ok(entity(thing).body, entity(thing).headers);

export const showProduct = (product: Product): Reply<200> => ok(entity(product).body, entity(product).headers);
export const showOrder = (order: Order): Reply<200> => ok(entity(order).body, entity(order).headers);

export function list<T extends { version: number }>(
  path: string,
  { items, next_cursor }: { items: T[]; next_cursor: string | null },
  input: Input,
): Reply<200> {
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
