import { Errors } from "moleculer";
import type { FailedItem } from "../contracts/contract";
import { ERRORS, isErrorCode, type ErrorCode, type FieldError } from "../contracts/errors";

/**
 * An expected refusal: a stable code, and a sentence for a person that may be shown to anyone.
 * Between nodes it becomes a plain Error with the same `type`, `code` and `data`: match `type`, never `instanceof`.
 */
export class Problem extends Errors.MoleculerError {
  constructor(code: ErrorCode, detail: string, { cause, ...data }: ProblemOptions = {}) {
    super(detail, ERRORS[code].status, code, data);
    this.name = "Problem";
    if (cause !== undefined) this.cause = cause;
  }
}

/** Why something could not be connected to: where a name has several addresses Node's error has no message. */
export function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return error.message || ("code" in error ? String(error.code) : error.name);
}

interface ProblemOptions {
  errors?: FieldError[];
  /** seconds */
  retryAfter?: number;
  /** the content codings that would have been taken */
  acceptEncoding?: string;
  /** for the log */
  cause?: unknown;
}

export const problem = (code: ErrorCode, detail: string, options?: ProblemOptions): Problem => new Problem(code, detail, options);

/** For work whose time was over, or whose client had gone, before it was its turn. */
export const tooLate = (): Problem => problem("SERVICE_UNAVAILABLE", "this waited for too long");

/** A 422 for one field, for rules that no schema can say. */
export const invalid = (field: string, message: string): Problem =>
  problem("VALIDATION_ERROR", `${field} ${message}`, { errors: [{ field, message }] });

/** The `type` of an error that came from anywhere, another node too. */
export function errorType(error: unknown): string | undefined {
  if (!(error instanceof Error) || !("type" in error)) return undefined;
  return typeof error.type === "string" ? error.type : undefined;
}

/** What Moleculer itself says when a call could not be made or answered in time. */
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
 * The code that a client is told for an error from anywhere in the system. What is neither a refusal of ours nor a
 * service that is away is our fault: INTERNAL_ERROR.
 */
export function errorCode(error: unknown): ErrorCode {
  const type = errorType(error);
  if (isErrorCode(type)) return type;
  return type !== undefined && UNREACHABLE.has(type) ? "SERVICE_UNAVAILABLE" : "INTERNAL_ERROR";
}

export const isUnreachable = (error: unknown): boolean => errorCode(error) === "SERVICE_UNAVAILABLE";

/** The error of one item of many, as it travels. The message of what is no refusal of ours is for nobody outside. */
export function failedItem(error: unknown): FailedItem {
  const code = errorCode(error);
  const isOurs = isErrorCode(errorType(error)) && error instanceof Error;
  return { error: { code, detail: isOurs ? error.message : "" } };
}

export const itemError = ({ error: { code, detail } }: FailedItem): Problem => problem(isErrorCode(code) ? code : "INTERNAL_ERROR", detail);
