import { STATUS_CODES } from "node:http";
import { KindGuard } from "@sinclair/typebox";
import { Problem, type ProblemDetails } from "../../../contracts/api";
import { ERRORS, isErrorCode, type ErrorCode } from "../../../contracts/errors";
import { problemDetails } from "../http/problem";
import type { Route } from "../routing/route";
import { fieldsOf } from "../../../contracts/contract";
import { EXAMPLE_ID, type Schemas } from "./schemas";

/*
 * A route's responses, for the OpenAPI document.
 */

const HEADERS = {
  ETag: "The version of the resource, for `If-Match` and `If-None-Match`.",
  Location: "The path of the new resource.",
  Link: 'The next page, `rel="next"` (RFC 8288); absent on the last one.',
  "Idempotent-Replayed": "`true` if the key was used before: this repeats the first response.",
  "Retry-After": "Seconds to wait before retrying.",
  "WWW-Authenticate": "The required authentication scheme (RFC 6750).",
};
type Header = keyof typeof HEADERS;

export const headers = Object.fromEntries(
  Object.entries(HEADERS).map(([name, description]) => [name, { description, schema: { type: "string" } }]),
);

/** Data of the examples, by code. */
const DATA: Partial<Record<ErrorCode, Partial<ProblemDetails>>> = {
  VALIDATION_ERROR: { errors: [{ field: "items[0].quantity", message: "must be >= 1", limit: 1 }] },
  BAD_REQUEST: { allowed: ["PENDING", "CONFIRMED", "REJECTED", "CANCELLED"] },
  INSUFFICIENT_STOCK: { shortages: [{ product_id: EXAMPLE_ID, wanted: 3, available: 1 }] },
  TOO_MANY_REQUESTS: { retry_after: 2 },
  SERVICE_UNAVAILABLE: { retry_after: 2 },
};

/** An example error for each code. */
export const examples = (basePath: string): object =>
  Object.fromEntries(
    Object.keys(ERRORS)
      .filter(isErrorCode)
      .map((code) => [code, { value: { ...problemDetails(code, "4d52694d-d4b2-4054-83c3-b8f5e731209c", basePath), ...DATA[code] } }]),
  );

const headersOf = (names: Header[]) =>
  names.length > 0 && { headers: Object.fromEntries(names.map((name) => [name, { $ref: `#/components/headers/${name}` }])) };

/** Statuses without a body (RFC 9110, 15.3.5 and 15.4.5). */
const EMPTY = [204, 304];

/** All responses of a route, by status. */
export const responses = (route: Route, schemas: Schemas): object => ({
  ...problems(route, schemas),
  ...successes(route, schemas),
});

function successes({ statuses, contract: { result }, media = ["application/json"], idempotent }: Route, schemas: Schemas): object {
  const fields = fieldsOf(result);
  const isEmpty = KindGuard.IsObject(result) && Object.keys(fields).length === 0;
  return Object.fromEntries(
    statuses.map((status) => [
      status,
      {
        description: STATUS_CODES[status] ?? "",
        ...headersOf([
          ...("version" in fields || statuses.includes(304) ? (["ETag"] as const) : []),
          ...(status === 201 ? (["Location"] as const) : []),
          ...("next_cursor" in fields ? (["Link"] as const) : []),
          ...(idempotent ? (["Idempotent-Replayed"] as const) : []),
        ]),
        ...(!EMPTY.includes(status) &&
          !isEmpty && { content: Object.fromEntries(media.map((type) => [type, { schema: schemas.of(result) }])) }),
      },
    ]),
  );
}

/** Every error code that a route may respond with: its own, and those of all routes of its kind. */
function codesOf({ auth, body, errors, supplied, idempotent }: Route): ErrorCode[] {
  return [
    "BAD_REQUEST", // any route, e.g. without a Host header
    ...(body !== "none" ? (["MALFORMED_JSON", "BODY_TOO_LARGE", "UNSUPPORTED_MEDIA_TYPE", "VALIDATION_ERROR"] as const) : []),
    ...(auth !== "public" ? (["UNAUTHENTICATED"] as const) : []),
    ...(auth === "admin" ? (["FORBIDDEN"] as const) : []),
    ...(idempotent ? (["IDEMPOTENCY_IN_FLIGHT", "IDEMPOTENCY_KEY_REUSED"] as const) : []),
    ...Object.values(supplied).map(({ code }) => code),
    ...errors,
    "TOO_MANY_REQUESTS",
    "INTERNAL_ERROR",
    "SERVICE_UNAVAILABLE",
  ];
}

function problems(route: Route, schemas: Schemas): object {
  const codes = codesOf(route);
  const form = typeof route.body === "object" ? route.body.form : undefined;
  const statuses = new Set(codes.map((code) => ERRORS[code].status));
  return Object.fromEntries(
    [...statuses].map((status) => {
      const some = [...new Set(codes)].filter((code) => ERRORS[code].status === status);
      return [
        status,
        {
          description: some.join(", "),
          ...headersOf(status === 401 ? ["WWW-Authenticate"] : status === 503 || status === 429 ? ["Retry-After"] : []),
          content: {
            "application/problem+json": {
              schema: { ...schemas.of(Problem), properties: { code: { enum: some } } },
              examples: Object.fromEntries(some.map((code) => [code, { $ref: `#/components/examples/${code}` }])),
            },
            ...(form && status === 400 && { "application/json": { schema: schemas.of(form.error) } }),
          },
        },
      ];
    }),
  );
}
