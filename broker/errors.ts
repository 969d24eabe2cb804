import { Errors } from "moleculer";
import type { FailedItem, Shortage } from "../contracts/contract";
import { ERRORS, isErrorCode, type ErrorCode, type FieldError, type Literal } from "../contracts/errors";

/** The `code` of Moleculer's timeout errors. */
export const TIMEOUT_STATUS = 504;

/**
 * An expected refusal: a stable code, and a readable sentence that may be shown to anyone.
 * Between nodes it becomes a plain Error with the same `type`, `code` and `data`: match by `type`, never by `instanceof`.
 */
export class Problem extends Errors.MoleculerError {
  declare readonly data: Omit<ProblemOptions, "cause">;

  constructor(code: ErrorCode, detail: string, { cause, ...data }: ProblemOptions = {}) {
    super(detail, ERRORS[code].status, code, data);
    this.name = "Problem";
    if (cause !== undefined) this.cause = cause;
  }
}

/** Why a connection failed: if a host name has several addresses, Node's error has no message. */
export function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return error.message || ("code" in error ? String(error.code) : error.name);
}

interface ProblemOptions {
  errors?: FieldError[];
  /** The values that are accepted. */
  allowed?: Literal[];
  shortages?: readonly Shortage[];
  /** Seconds. */
  retryAfter?: number;
  /** The content codings that are supported. */
  acceptEncoding?: string;
  /** Whether a request that is not authenticated has an access token. */
  hasToken?: boolean;
  /** For the log. */
  cause?: unknown;
}

export const problem = (code: ErrorCode, detail: string, options?: ProblemOptions): Problem => new Problem(code, detail, options);

/** @param tags those of If-Match that the resource could have had; none if all were weak or not in quotes */
export const preconditionFailed = (resource: string, tags: readonly unknown[]) =>
  problem(
    "PRECONDITION_FAILED",
    tags.length > 0
      ? `the ${resource} has changed since it was read`
      : `If-Match has no ETag of the ${resource}: send one as you received it, in quotes and without W/ (a proxy that compresses may change it)`,
  );

/** For work whose deadline passed, or whose client disconnected, before its turn. */
export const tooLate = (): Problem => problem("SERVICE_UNAVAILABLE", "the request waited too long");

/** A 422 for one field, for rules that no schema can express. */
export const invalid = (field: string, message: string): Problem =>
  problem("VALIDATION_ERROR", `${field} ${message}`, { errors: [{ field, message }] });

/** The `type` of an error, which may come from another node. */
export function errorType(error: unknown): string | undefined {
  if (!(error instanceof Error) || !("type" in error)) return undefined;
  return typeof error.type === "string" ? error.type : undefined;
}

/** Moleculer's own error types for a call that could not be made, or got no response in time. */
const UNREACHABLE = new Set([
  "SERVICE_NOT_FOUND",
  "SERVICE_NOT_AVAILABLE",
  "REQUEST_TIMEOUT",
  "REQUEST_SKIPPED",
  "REQUEST_REJECTED",
  "QUEUE_FULL",
  "BAD_GATEWAY",
]);

/**
 * The code that a client gets for an error from anywhere in the system. An error that is neither one of our refusals nor an
 * unavailable service is a bug: INTERNAL_ERROR.
 */
export function errorCode(error: unknown): ErrorCode {
  const type = errorType(error);
  if (isErrorCode(type)) return type;
  return type !== undefined && UNREACHABLE.has(type) ? "SERVICE_UNAVAILABLE" : "INTERNAL_ERROR";
}

export const isUnavailable = (error: unknown): boolean => errorCode(error) === "SERVICE_UNAVAILABLE";

/** The error of one item of a batched call, serialized. Only the messages of our own refusals may be shown to clients. */
export function failedItem(error: unknown): FailedItem {
  const code = errorCode(error);
  const isOurs = isErrorCode(errorType(error)) && error instanceof Error;
  const shortages = error instanceof Problem ? error.data.shortages : undefined;
  return { error: { code, detail: isOurs ? error.message : "", ...(shortages && { shortages: [...shortages] }) } };
}

export const itemError = ({ error: { code, detail, shortages } }: FailedItem): Problem =>
  problem(isErrorCode(code) ? code : "INTERNAL_ERROR", detail, shortages && { shortages });
