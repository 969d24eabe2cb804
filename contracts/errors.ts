/**
 * Every error that a client can get: its stable code, its HTTP status and the title of that status (RFC 9110, section 15).
 * Between nodes the code is the error's `type`.
 */
export const ERRORS = {
  MALFORMED_JSON: { status: 400, title: "Bad Request" },
  BAD_REQUEST: { status: 400, title: "Bad Request" },
  UNAUTHENTICATED: { status: 401, title: "Unauthorized" },
  INVALID_CREDENTIALS: { status: 401, title: "Unauthorized" },
  INVALID_REFRESH_TOKEN: { status: 401, title: "Unauthorized" },
  FORBIDDEN: { status: 403, title: "Forbidden" },
  NOT_FOUND: { status: 404, title: "Not Found" },
  PRODUCT_NOT_FOUND: { status: 404, title: "Not Found" },
  ORDER_NOT_FOUND: { status: 404, title: "Not Found" },
  USER_NOT_FOUND: { status: 404, title: "Not Found" },
  METHOD_NOT_ALLOWED: { status: 405, title: "Method Not Allowed" },
  EMAIL_TAKEN: { status: 409, title: "Conflict" },
  INSUFFICIENT_STOCK: { status: 409, title: "Conflict" },
  ORDER_NOT_CANCELLABLE: { status: 409, title: "Conflict" },
  IDEMPOTENCY_IN_FLIGHT: { status: 409, title: "Conflict" },
  NOT_PARKED: { status: 409, title: "Conflict" },
  LAST_ADMIN: { status: 409, title: "Conflict" },
  PRECONDITION_FAILED: { status: 412, title: "Precondition Failed" },
  BODY_TOO_LARGE: { status: 413, title: "Content Too Large" },
  UNSUPPORTED_MEDIA_TYPE: { status: 415, title: "Unsupported Media Type" },
  VALIDATION_ERROR: { status: 422, title: "Unprocessable Content" },
  IDEMPOTENCY_KEY_REUSED: { status: 422, title: "Unprocessable Content" },
  TOO_MANY_REQUESTS: { status: 429, title: "Too Many Requests" },
  INTERNAL_ERROR: { status: 500, title: "Internal Server Error" },
  SERVICE_UNAVAILABLE: { status: 503, title: "Service Unavailable" },
} as const satisfies Record<string, { status: number; title: string }>;

export type ErrorCode = keyof typeof ERRORS;

export function isErrorCode(code: unknown): code is ErrorCode {
  return typeof code === "string" && Object.hasOwn(ERRORS, code);
}

/** One field that breaks a contract, as in the `errors` of a 422. */
export interface FieldError {
  field: string;
  message: string;
}
