/** The titles of the statuses (RFC 9110, section 15). */
const TITLES = {
  400: "Bad Request",
  401: "Unauthorized",
  403: "Forbidden",
  404: "Not Found",
  405: "Method Not Allowed",
  409: "Conflict",
  412: "Precondition Failed",
  413: "Content Too Large",
  415: "Unsupported Media Type",
  422: "Unprocessable Content",
  429: "Too Many Requests",
  500: "Internal Server Error",
  503: "Service Unavailable",
};

const error = <S extends keyof typeof TITLES>(status: S, explanation: string) => ({ status, title: TITLES[status], explanation });

/**
 * Every error that a client can get: its stable code, its HTTP status and title, and what a client can do about it, in Markdown.
 * Between nodes the code is the error's `type`.
 */
export const ERRORS = {
  MALFORMED_JSON: error(
    400,
    "The body can't be parsed as JSON in UTF-8. Check its syntax and encoding; sending it again unchanged fails again.",
  ),
  BAD_REQUEST: error(
    400,
    "A query parameter, a header, a cursor or the HTTP message itself is invalid. `detail` names it; `allowed` lists the values of a parameter that has few.",
  ),
  UNAUTHENTICATED: error(
    401,
    "The request has no valid access token: it is missing, expired, or its session has ended. Get a new one with the refresh token, or log in again.",
  ),
  INVALID_CREDENTIALS: error(
    401,
    "The e-mail address or the password is wrong, or the account is disabled. Which of these is not revealed.",
  ),
  INVALID_REFRESH_TOKEN: error(401, "The refresh token is unknown, expired or was used before. Log in again."),
  FORBIDDEN: error(403, "The token is valid, but its user may not do this: it is for admins, or for the owner of the resource."),
  NOT_FOUND: error(404, "No resource has this path."),
  PRODUCT_NOT_FOUND: error(404, "No product on sale has this id. It may have been taken off sale."),
  ORDER_NOT_FOUND: error(404, "No order of yours has this id. An order of another user gets the same response."),
  USER_NOT_FOUND: error(404, "No account has this id or e-mail address."),
  METHOD_NOT_ALLOWED: error(405, "The path exists, but not with this method. The header `Allow` lists its methods."),
  EMAIL_TAKEN: error(409, "An account with this e-mail address exists. Log in, or register another address."),
  INSUFFICIENT_STOCK: error(
    409,
    "There are too few units. For an order, `shortages` has each product with the units wanted and available. Order fewer, or try again later.",
  ),
  ORDER_NOT_CANCELLABLE: error(409, "The order was rejected, so there is nothing to cancel."),
  IDEMPOTENCY_IN_FLIGHT: error(
    409,
    "The first request with this Idempotency-Key is still in progress. Retry with the same key in a moment.",
  ),
  NOT_PARKED: error(409, "Only parked outbox rows can be replayed; this one is pending or settled."),
  LAST_ADMIN: error(409, "The shop would be left without an enabled admin. Make somebody else an admin first."),
  PRECONDITION_FAILED: error(
    412,
    "The resource has changed since the version in `If-Match`. Read it again, and decide whether the change still applies.",
  ),
  BODY_TOO_LARGE: error(413, "The body has more than 100 KiB, before or after decompression."),
  UNSUPPORTED_MEDIA_TYPE: error(
    415,
    "The body must be JSON in UTF-8, uncompressed or in a supported content coding, which the header `Accept-Encoding` lists if the coding was the reason.",
  ),
  VALIDATION_ERROR: error(
    422,
    "The body breaks the contract. `errors` names each field with what is wrong; `allowed` and `limit` have the values that would be accepted.",
  ),
  IDEMPOTENCY_KEY_REUSED: error(422, "This Idempotency-Key was used before for a different request. Use a new key for each new request."),
  TOO_MANY_REQUESTS: error(
    429,
    "A limit was reached: failed logins, registrations, requests, or your share of a queue. Wait for the seconds in `retry_after`, which the header `Retry-After` repeats.",
  ),
  INTERNAL_ERROR: error(
    500,
    "A bug on our side. Nothing is known about the effect of the request; with an Idempotency-Key it is safe to retry. Quote the request id when you report it.",
  ),
  SERVICE_UNAVAILABLE: error(
    503,
    "A service or its database is unavailable or overloaded. Retry after the seconds in `retry_after`; with an Idempotency-Key it takes effect once.",
  ),
};

export type ErrorCode = keyof typeof ERRORS;

export function isErrorCode(code: unknown): code is ErrorCode {
  return typeof code === "string" && Object.hasOwn(ERRORS, code);
}

export type Literal = string | number | boolean | null;

/** One field that breaks a contract, as in the `errors` of a 422. */
export interface FieldError {
  field: string;
  message: string;
  /** The values that are accepted, if there are few. */
  allowed?: Literal[];
  /** The bound that is exceeded. */
  limit?: number;
}
