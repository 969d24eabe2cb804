import { errorCode, errorType, problem } from "../../../broker/errors";
import { Type } from "@sinclair/typebox";
import { matches } from "../../../broker/validator";
import { Values, type ProblemDetails } from "../../../contracts/api";
import { Shortage } from "../../../contracts/contract";
import { ERRORS, isErrorCode, type ErrorCode, type FieldError } from "../../../contracts/errors";

/** Default of `Retry-After`, in seconds. */
const RETRY_AFTER_SECONDS = 2;

/** Our codes for the body parsers' errors (http-errors). */
const PARSER_ERRORS: Readonly<Record<string, ErrorCode>> = {
  "entity.too.large": "BODY_TOO_LARGE",
  "encoding.unsupported": "UNSUPPORTED_MEDIA_TYPE",
  "request.aborted": "BAD_REQUEST",
  "request.size.invalid": "BAD_REQUEST",
  UNABLE_DECODE_PARAM: "BAD_REQUEST",
};

const DETAILS: Partial<Record<ErrorCode, string>> = {
  MALFORMED_JSON: "the body is not JSON",
  BODY_TOO_LARGE: "the body has more than 100 KiB",
  UNSUPPORTED_MEDIA_TYPE: "the body must be application/json",
  BAD_REQUEST: "the request is malformed",
  SERVICE_UNAVAILABLE: "this part of the shop is unavailable now; try again soon",
  INTERNAL_ERROR: "something went wrong on our side; please quote the request id when you report it",
};

/** A refusal, if the error means that a body could not be read; otherwise the same error. */
export function translated(error: unknown): unknown {
  const type = errorType(error) ?? "";
  const code = Object.hasOwn(PARSER_ERRORS, type) ? PARSER_ERRORS[type] : undefined;
  return code === undefined ? error : problem(code, DETAILS[code] ?? ERRORS[code].title);
}

/** Any error as a problem for clients, without stack, SQL, node names or data. */
export function toProblem(error: unknown, requestId: string, basePath: string): ProblemDetails {
  const code = errorCode(error);
  const errors = code === "VALIDATION_ERROR" ? fieldErrors(error) : undefined;
  const detail = errors?.map((e) => `${e.field} ${e.message}`.trim()).join("; ") ?? sentence(error, code);
  return {
    ...problemDetails(code, requestId, basePath, detail),
    ...(errors && { errors }),
    ...dataFor(code, error),
  };
}

const Shortages = Type.Array(Shortage);

/** The members that are data for programs. An error from another node is checked, since it is data from outside. */
function dataFor(code: ErrorCode, error: unknown): Partial<ProblemDetails> {
  const { status } = ERRORS[code];
  if (status === 429 || status === 503) return { retry_after: retryAfter(error) };
  const data = dataOf(error);
  if (code === "INSUFFICIENT_STOCK" && "shortages" in data && matches(Shortages, data.shortages)) return { shortages: data.shortages };
  if (code === "BAD_REQUEST" && "allowed" in data && matches(Values, data.allowed)) return { allowed: data.allowed };
  return {};
}

export function problemDetails(
  code: ErrorCode,
  requestId: string,
  basePath: string,
  detail = DETAILS[code] ?? ERRORS[code].title,
): ProblemDetails {
  return {
    type: `${basePath}/problems/${code}`, // a relative reference (RFC 9457, 3.1.1): the page is served by the gateway itself
    title: ERRORS[code].title,
    status: ERRORS[code].status,
    code,
    detail,
    request_id: requestId,
  };
}

/** The response headers for a problem (RFC 6750, section 3; RFC 9110, 10.2.3). */
export function problemHeaders({ status, code }: ProblemDetails, error?: unknown): Record<string, string> {
  if (status === 401) {
    const data = dataOf(error);
    const isInvalid = code === "UNAUTHENTICATED" && !("hasToken" in data && data.hasToken === false);
    return { "WWW-Authenticate": isInvalid ? 'Bearer realm="shop", error="invalid_token"' : 'Bearer realm="shop"' };
  }
  if (status === 415) return acceptEncoding(error);
  return status === 503 || status === 429 ? { "Retry-After": String(retryAfter(error)) } : {};
}

/** RFC 9110, 12.5.3. */
function acceptEncoding(error: unknown): Record<string, string> {
  const data = dataOf(error);
  return "acceptEncoding" in data && typeof data.acceptEncoding === "string" ? { "Accept-Encoding": data.acceptEncoding } : {};
}

/** The value that the refusal itself gives, if any. */
function retryAfter(error: unknown): number {
  const data = dataOf(error);
  return "retryAfter" in data && typeof data.retryAfter === "number" ? data.retryAfter : RETRY_AFTER_SECONDS;
}

function dataOf(error: unknown): object {
  const data: unknown = error instanceof Error && "data" in error ? error.data : undefined;
  return typeof data === "object" && data !== null ? data : {};
}

/** Only the messages of our own refusals are meant for clients. */
function sentence(error: unknown, code: ErrorCode): string | undefined {
  const ours = isErrorCode(errorType(error)) && code !== "INTERNAL_ERROR" && code !== "SERVICE_UNAVAILABLE";
  return ours && error instanceof Error ? error.message : undefined;
}

/** Only field and message are for clients: Moleculer adds node, action and more to each error. */
function fieldErrors(error: unknown): FieldError[] {
  const data = dataOf(error);
  const list: unknown = "errors" in data ? data.errors : data;
  if (!Array.isArray(list)) return [];
  return list.flatMap((item: unknown) => {
    if (typeof item !== "object" || item === null || !("field" in item) || !("message" in item)) return [];
    return {
      field: String(item.field),
      message: String(item.message),
      ...("allowed" in item && matches(Values, item.allowed) && { allowed: item.allowed }),
      ...("limit" in item && typeof item.limit === "number" && { limit: item.limit }),
    };
  });
}
