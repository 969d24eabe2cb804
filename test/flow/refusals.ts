import { gzipSync } from "node:zlib";
import { testId } from "../../testkit/ids";
import type { Documentation } from "../../testkit/openapi";

/** A request that a route refuses with one of its documented codes. */
export interface Refusal {
  code: string;
  method: string;
  target: string;
  /** the user that sends it; anonymous by default */
  as?: "seller" | "buyer" | "admin";
  token?: string;
  headers?: Readonly<Record<string, string>>;
  body?: string | Buffer;
  /** Sent without a Host header, which fetch would add. */
  withoutHost?: boolean;
}

/** The data in the shop that the requests refer to. */
export interface Fixture {
  productId: string;
  /** the buyer's, CONFIRMED */
  orderId: string;
  /** the buyer's, REJECTED */
  rejectedId: string;
  /** of an outbox row that is not parked */
  outboxId: number;
  /** the key of `orderId`, an order for one unit; and in each database, of a request that no route has */
  usedKey: string;
  /** a key that another transaction holds, in each database */
  heldKey: string;
  email: string;
  /** the only admin */
  adminId: string;
}

const JSON_TYPE = { "Content-Type": "application/json" };
const GARBAGE = "not-a-token";
/** An id that nothing has; below, also strings that are no id. */
const UNKNOWN_ID = testId(999_999);
const UNKNOWN_IDS = [UNKNOWN_ID, "999999", "abc"];

/** @param example the documented body of a request, as JSON */
type Provoke = (line: string, path: string, fixture: Fixture, example: string) => Partial<Refusal>[];

/** By code: the requests that a route which documents it refuses with it. `path` has the ids filled in. */
const PROVOKE: Readonly<Record<string, Provoke>> = {
  BAD_REQUEST: (line) => [
    { withoutHost: true },
    ...(takesBody(line) ? [{ body: gzipSync("{}").subarray(0, 10), headers: { ...JSON_TYPE, "Content-Encoding": "gzip" } }] : []),
    ...(/^GET \/(products|orders|admin\/outbox|admin\/audit-log)$/.test(line)
      ? [{ target: `${line.slice(4)}?limit=0` }, { target: `${line.slice(4)}?cursor=x` }]
      : []),
    ...(takesKey(line) ? [{ headers: { ...JSON_TYPE, "Idempotency-Key": "a b" }, body: "{}" }] : []),
    ...(line.endsWith("{id}/events") ? [{ headers: { "Last-Event-ID": "x" } }] : []),
  ],
  MALFORMED_JSON: () => [
    { body: "{", headers: JSON_TYPE },
    { body: '"\\ud800', headers: JSON_TYPE },
  ],
  BODY_TOO_LARGE: () => [
    { body: " ".repeat(102_401), headers: JSON_TYPE },
    { body: gzipSync(Buffer.alloc(1e6)), headers: { ...JSON_TYPE, "Content-Encoding": "gzip" } },
  ],
  UNSUPPORTED_MEDIA_TYPE: () => [
    { body: "x", headers: { "Content-Type": "text/plain" } },
    { body: "x", headers: { ...JSON_TYPE, "Content-Encoding": "zstd" } },
    { body: "x", headers: { ...JSON_TYPE, "Content-Encoding": "gzip, gzip" } },
    { body: "{}", headers: { "Content-Type": "application/json; charset=latin1" } },
  ],
  VALIDATION_ERROR: () =>
    ['{"nonsense":1}', "null", "[]", '{"__proto__":{}}', '{"items":[{}]}'].map((body) => ({ body, headers: JSON_TYPE })),
  UNAUTHENTICATED: () => [
    { token: "" },
    { token: GARBAGE },
    { token: `${Buffer.from('{"alg":"RS256","kid":"x"}').toString("base64url")}.e30.x` },
  ],
  INVALID_CREDENTIALS: (line, _path, { email }) =>
    line.startsWith("PUT")
      ? [{ body: '{"current_password":"wrong","new_password":"12345678"}', headers: JSON_TYPE }]
      : [email, "nobody@shop.test"].map((name) => ({ body: JSON.stringify({ email: name, password: "wrong" }), headers: JSON_TYPE })),
  INVALID_REFRESH_TOKEN: () => [{ body: '{"refresh_token":"unknown"}', headers: JSON_TYPE }],
  FORBIDDEN: (line, path) =>
    line === "GET /orders"
      ? [{ target: `${path}?all=true` }]
      : [
          {
            as: "buyer",
            ...(/POST|PATCH/.test(line) && { body: '{"delta":1}', headers: JSON_TYPE }),
            ...(line.startsWith("PATCH") && { body: "{}" }),
          },
        ],
  NOT_FOUND: (_line, path) => [{ target: path.replace(/[^/]+(?=\/replay$)|(?<=\/docs\/).*/, "999999") }],
  PRODUCT_NOT_FOUND: (line) =>
    line === "POST /orders"
      ? [{ body: orderOf(UNKNOWN_ID, 1), headers: JSON_TYPE }]
      : UNKNOWN_IDS.map((id) => ({ target: pathOf(line, id), ...withBody(line) })),
  ORDER_NOT_FOUND: (line) => [...UNKNOWN_IDS.map((id) => ({ target: pathOf(line, id) })), { as: "seller" }],
  USER_NOT_FOUND: (line, path) =>
    line.startsWith("GET")
      ? [{ target: `${path}?email=nobody@shop.test` }]
      : UNKNOWN_IDS.map((id) => ({ target: pathOf(line, id), ...withBody(line) })),
  LAST_ADMIN: () => ['{"disabled":true}', '{"role":"user"}'].map((body) => ({ body, headers: JSON_TYPE })),
  EMAIL_TAKEN: (_line, _path, { email }) => [{ body: JSON.stringify({ email, password: "12345678" }), headers: JSON_TYPE }],
  INSUFFICIENT_STOCK: (line, _path, { productId }) => [
    { body: line === "POST /orders" ? orderOf(productId, 9_999) : '{"delta":-9999}', headers: JSON_TYPE },
  ],
  ORDER_NOT_CANCELLABLE: (line, _path, { rejectedId }) => [{ target: pathOf(line, rejectedId) }],
  IDEMPOTENCY_IN_FLIGHT: (line, _path, { productId, heldKey }) => [
    { body: keyedBody(line, productId, 1), headers: { ...JSON_TYPE, "Idempotency-Key": heldKey } },
  ],
  IDEMPOTENCY_KEY_REUSED: (line, _path, { productId, usedKey }) =>
    // One order that would otherwise be created, and one that would be refused for lack of stock.
    [2, 9_999].map((quantity) => ({
      body: keyedBody(line, productId, quantity),
      headers: { ...JSON_TYPE, "Idempotency-Key": usedKey },
    })),
  NOT_PARKED: () => [{}],
  // A valid request: its preconditions don't matter before.
  PRECONDITION_FAILED: (_line, _path, _fixture, example) => [{ body: example, headers: { ...JSON_TYPE, "If-Match": '"999"' } }],
};

const pathOf = (line: string, id: string | number): string => line.slice(line.indexOf("/")).replace("{id}", String(id));

const orderOf = (productId: string, quantity: number): string => JSON.stringify({ items: [{ product_id: productId, quantity }] });

const takesKey = (line: string): boolean => /^POST \/(products|orders|admin\/outbox)\b/.test(line);

/** A valid body of a route that takes a key. @param quantity if it is an order */
function keyedBody(line: string, productId: string, quantity: number): string {
  if (line === "POST /orders") return orderOf(productId, quantity);
  if (line === "POST /products") return '{"name":"Lamp","price":1,"quantity":1}';
  return line.endsWith("/stock") ? '{"delta":1}' : "{}";
}

const takesBody = (line: string): boolean => /^(POST|PUT|PATCH)/.test(line) && !/\/(cancel|replay)$/.test(line);

const withBody = (line: string): Partial<Refusal> =>
  line.startsWith("GET") || line.startsWith("DELETE") ? {} : { body: line.startsWith("PATCH") ? "{}" : '{"delta":1}', headers: JSON_TYPE };

function idFor(template: string, { outboxId, adminId, orderId, productId }: Fixture): string | number {
  if (template.startsWith("/admin/outbox")) return outboxId;
  if (template.startsWith("/admin/users")) return adminId;
  return template.startsWith("/orders") ? orderId : productId;
}

/** The codes that an operation documents. */
export const codesOf = (documentation: Documentation, line: string): string[] => Object.values(documentation.codes(line)).flat();

/** Requests for every refusal that the routes document. @returns as `unknown`, the codes for which PROVOKE has no entry */
export function refusals(documentation: Documentation, fixture: Fixture): { known: Refusal[]; unknown: string[] } {
  const known: Refusal[] = [];
  const unknown: string[] = [];
  for (const line of documentation.lines) {
    const [method = "", template = ""] = line.split(" ");
    const path = pathOf(line, idFor(template, fixture)).replace("{file}", "start.js");
    const { security, tags } = documentation.operation(line);
    const who =
      security.length === 0
        ? {}
        : ({ as: tags.includes("Operations") ? "admin" : template.startsWith("/orders") ? "buyer" : "seller" } as const);
    const example = JSON.stringify(documentation.operation(line).requestBody?.content["application/json"]?.example ?? {});
    for (const code of codesOf(documentation, line)) {
      const made = PROVOKE[code]?.(line, path, fixture, example);
      if (made === undefined) unknown.push(`${line}: ${code}`);
      for (const one of made ?? []) known.push({ code, method, target: path, ...who, ...one });
    }
  }
  return { known, unknown };
}
