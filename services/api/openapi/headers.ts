import type { Components } from "./components";

const HEADERS = {
  ETag: { description: "The version of the resource, for `If-Match` and `If-None-Match`.", type: "string", example: '"3-17"' },
  Location: { description: "The path of the new resource.", type: "string", example: "/products/017f22e2-79b0-7cc3-98c4-dc0c0c07398f" },
  Link: {
    description: 'The next page, `rel="next"` (RFC 8288); absent on the last one.',
    type: "string",
    example: '</products?cursor=WyJwcm9kdWN0cyJd>; rel="next"',
  },
  "Idempotent-Replayed": {
    description: "`true` if the key was used before: this repeats the first response. Otherwise absent.",
    type: "string",
    example: "true",
  },
  "Retry-After": { description: "Seconds to wait before retrying.", type: "integer", example: 2 },
  "WWW-Authenticate": { description: "The required authentication scheme (RFC 6750).", type: "string", example: 'Bearer realm="shop"' },
};
type Header = keyof typeof HEADERS;

/** The part of a response with these headers; empty if there are none. */
export function headersOf(names: readonly Header[], components: Components): { headers?: object } {
  if (names.length === 0) return {};
  return { headers: Object.fromEntries(names.map((name) => [name, referTo(name, components)])) };
}

function referTo(name: Header, components: Components): object {
  const { description, type, example } = HEADERS[name];
  return components.refer("headers", name, { description, schema: { type }, example });
}
