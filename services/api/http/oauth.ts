import type { ErrorCode } from "../../../contracts/errors";
import type { OAuthError } from "../../../contracts/oauth";
import type { HttpResponse } from "../routing/route";
import { toProblem } from "./problem";

/** Headers of every response with a token, and of a refused grant (RFC 6749, sections 5.1 and 5.2). */
export const NOT_CACHED = { "Cache-Control": "no-store", Pragma: "no-cache" };

/** A form without a valid grant. */
export class RefusedForm extends Error {
  constructor(
    readonly code: OAuthError["error"],
    description: string,
  ) {
    super(description);
    this.name = "RefusedForm";
  }
}

/**
 * What our own codes are in OAuth. RFC 6749 defines errors of status 400 only, apart from client authentication, which does not exist here;
 * `temporarily_unavailable` is for another endpoint (4.1.2.1). Whatever is not listed stays a problem, with its status and Retry-After.
 */
const CODES: Partial<Record<ErrorCode, OAuthError["error"]>> = {
  BAD_REQUEST: "invalid_request",
  VALIDATION_ERROR: "invalid_request",
  INVALID_CREDENTIALS: "invalid_grant",
  INVALID_REFRESH_TOKEN: "invalid_grant",
};

/** The response to an error of a form at /token (RFC 6749, section 5.2); undefined if it is a problem as for JSON. */
export function oauthRefusal(error: unknown): HttpResponse<400> | undefined {
  if (error instanceof RefusedForm) return refusal(error.code, error.message);
  const { code, detail, errors } = toProblem(error, "", ""); // the request id and the URL of the type are not used
  const known = CODES[code];
  return known && refusal(known, errors?.map(({ field, message }) => `${parameterOf(field)} ${message}`).join("; ") ?? detail);
}

const refusal = (error: OAuthError["error"], description: string): HttpResponse<400> => {
  const body: OAuthError = { error, error_description: description.replace(/["\\]/g, "'").replace(/[^\x20-\x7e]/g, "?") };
  return { status: 400, body, headers: NOT_CACHED };
};

/** The form's name for a field of a contract. */
const parameterOf = (field: string): string => (field === "email" ? "username" : field);
