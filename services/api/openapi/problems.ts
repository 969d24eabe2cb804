import { Type } from "@sinclair/typebox";
import { Problem, PROBLEM_DATA, type ProblemDetails } from "../../../contracts/api";
import { ERRORS, isErrorCode, type ErrorCode } from "../../../contracts/errors";
import { problemDetails } from "../http/problem";
import { isWrite } from "../routing/input";
import type { Route } from "../routing/route";
import { exampleOf } from "./examples";
import { headersOf } from "./headers";
import { EXAMPLE_ID, type Schema, type Schemas } from "./schemas";

/*
 * A route's error responses, for the OpenAPI document. Each problem has a schema of its own, so that a client knows which data come with
 * which code.
 */

const CODES = Object.keys(ERRORS).filter(isErrorCode);

/** What the example of a code has in addition to its defaults. */
const EXAMPLES: Partial<Record<ErrorCode, Partial<ProblemDetails>>> = {
  VALIDATION_ERROR: {
    detail: "items[0].quantity must be >= 1",
    errors: [{ field: "items[0].quantity", message: "must be >= 1", limit: 1 }],
  },
  BAD_REQUEST: {
    detail: "the query parameter status must be one of PENDING, CONFIRMED, REJECTED, CANCELLED",
    allowed: ["PENDING", "CONFIRMED", "REJECTED", "CANCELLED"],
  },
  INSUFFICIENT_STOCK: {
    detail: `not enough stock: product ${EXAMPLE_ID}: 3 wanted, 1 left`,
    shortages: [{ product_id: EXAMPLE_ID, wanted: 3, available: 1 }],
  },
  TOO_MANY_REQUESTS: { retry_after: 2 },
  SERVICE_UNAVAILABLE: { retry_after: 2 },
};

/** Every error code that a route may respond with: its own, and those of all routes of its kind. */
function codesOf({ auth, body, errors, supplied, takesIdempotencyKey }: Route, method: string): ErrorCode[] {
  return [
    "BAD_REQUEST", // any route, e.g. without a Host header
    ...(body !== "none" ? (["MALFORMED_JSON", "BODY_TOO_LARGE", "UNSUPPORTED_MEDIA_TYPE", "VALIDATION_ERROR"] as const) : []),
    ...(auth !== "public" ? (["UNAUTHENTICATED"] as const) : []),
    ...(auth === "admin" ? (["FORBIDDEN"] as const) : []),
    ...(takesIdempotencyKey ? (["IDEMPOTENCY_IN_FLIGHT", "IDEMPOTENCY_KEY_REUSED"] as const) : []),
    ...(isWrite(method) ? (["PRECONDITION_FAILED"] as const) : []),
    ...Object.values(supplied).map(({ code }) => code),
    ...errors,
    "TOO_MANY_REQUESTS",
    "INTERNAL_ERROR",
    "SERVICE_UNAVAILABLE",
  ];
}

/** All error responses of a route, by status. @param basePath the `type` of the examples begins with it */
export function problems(route: Route, method: string, schemas: Schemas, basePath: string): Record<string, object> {
  const codes = codesOf(route, method);
  const form = typeof route.body === "object" ? route.body.form : undefined;
  const statuses = new Set(codes.map((code) => ERRORS[code].status));
  return Object.fromEntries(
    [...statuses].map((status): [string, object] => {
      // in the order of the list, so that routes with the same codes share a response
      const its = CODES.filter((code) => ERRORS[code].status === status && codes.includes(code));
      const response = responseOf(status, its, schemas, basePath);
      if (form === undefined || status !== 400) return [String(status), shared(its, response, schemas)];
      const other = { schema: schemas.of(form.error), ...exampleOf(route.contract, status) };
      return [String(status), { ...response, content: { ...response.content, "application/json": other } }];
    }),
  );
}

const shared = (codes: readonly ErrorCode[], response: object, { components }: Schemas): object =>
  components.refer("responses", codes.map(nameOf).join("Or"), response);

function responseOf(status: number, codes: readonly ErrorCode[], schemas: Schemas, basePath: string) {
  const each = codes.map((code) => schemaOf(code, schemas));
  const [only, ...others] = each;
  return {
    description: codes.join(", "),
    ...headersOf(status === 401 ? ["WWW-Authenticate"] : status === 503 || status === 429 ? ["Retry-After"] : [], schemas.components),
    content: {
      "application/problem+json": {
        schema: others.length === 0 ? only : { oneOf: each },
        examples: Object.fromEntries(codes.map((code) => [code, problemOf(code, schemas, basePath)])),
      },
    },
  };
}

/** EMAIL_TAKEN as EmailTaken. */
const nameOf = (code: ErrorCode): string => code.toLowerCase().replace(/(?:^|_)(\w)/g, (_all, letter: string) => letter.toUpperCase());

/** The problems of one code: the members that all have, with this code, and its own ones. */
function schemaOf(code: ErrorCode, schemas: Schemas): Schema {
  const words = code.toLowerCase().replaceAll("_", " ");
  const title = `${words.charAt(0).toUpperCase()}${words.slice(1)} problem`;
  const own = Type.Object({ code: Type.Unsafe<ErrorCode>({ type: "string", enum: [code] }), ...PROBLEM_DATA[code] });
  return schemas.refer(title, {
    title,
    description: ERRORS[code].explanation,
    allOf: [schemas.of(Problem), schemas.object(own)],
    unevaluatedProperties: false,
  });
}

const problemOf = (code: ErrorCode, { components }: Schemas, basePath: string): object =>
  components.refer("examples", code, {
    summary: code,
    value: { ...problemDetails(code, "4d52694d-d4b2-4054-83c3-b8f5e731209c", basePath), ...EXAMPLES[code] },
  });
