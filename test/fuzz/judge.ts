import { ERRORS, isErrorCode } from "../../contracts/errors";
import type { Documentation } from "../../testkit/openapi";
import { isForm, isGiven, type FuzzRequest } from "./request";
import type { Response } from "./send";

/** A client's X-Request-Id that the gateway keeps. */
const REQUEST_ID = /^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}$/;
/** Internals that no response may reveal. */
const LEAKS = /node_modules|\.[jt]s:\d+|sqlstate|violates|sequelize|"nodeID"|\bselect \w+ from\b/i;

const VALID = "to a valid request";
const THOUGH = "though it has";

/** Whether a smaller request can fail in the same way. A valid request may become invalid when reduced, and a faulty one valid. */
export const isReducible = (wrong: readonly string[]): boolean => !wrong.some((one) => one.endsWith(VALID) || one.includes(THOUGH));

/** The operation to which a request is routed; undefined if there is none. */
export function lineOf(documentation: Documentation, { method, path }: FuzzRequest): string | undefined {
  return documentation.lineOf(method === "HEAD" ? "GET" : method, path.replace(/\/{1,2}$/, ""));
}

/** @returns what is wrong with a response; empty if nothing is */
export function judge(request: FuzzRequest, response: Response, documentation: Documentation): string[] {
  const wrong: string[] = [];
  const { status, headers, text } = response;
  const isHead = request.method === "HEAD";
  const type = headers.get("content-type") ?? "";
  let body: unknown;
  try {
    body = /json/.test(type) && text !== "" ? JSON.parse(text) : text;
  } catch {
    wrong.push("the body is not JSON");
  }

  const sent = request.headers.find(([name]) => name === "X-Request-Id")?.[1] ?? "";
  const id = headers.get("x-request-id") ?? "";
  if (REQUEST_ID.test(sent) ? id !== sent : !/^[0-9a-f-]{36}$/.test(id)) wrong.push(`X-Request-Id is ${JSON.stringify(id)}`);
  if (headers.get("x-content-type-options") !== "nosniff") wrong.push("nosniff is missing");
  if (status >= 500 && status !== 503) wrong.push(`${status}`);
  if (status === 503 || status === 429) {
    if (!/^[1-9]\d*$/.test(headers.get("retry-after") ?? "") && !request.path.startsWith("/health")) wrong.push("Retry-After is missing");
  }
  if (status === 401 && !headers.get("www-authenticate")?.startsWith("Bearer")) wrong.push("WWW-Authenticate is missing");
  if (status === 405 && !/^[A-Z]+(, [A-Z]+)*$/.test(headers.get("allow") ?? "")) wrong.push("Allow is missing");
  if (status >= 400 && LEAKS.test(text)) wrong.push("it reveals internals");
  const mayBeOAuth = status === 400 && request.line === "POST /token" && isForm(request) && type.startsWith("application/json");
  if (mayBeOAuth) wrong.push(...oauthErrors(body));
  else if (status >= 400 && !isHead && !request.path.startsWith("/health")) wrong.push(...problemErrors(status, type, body, id));

  const line = lineOf(documentation, request);
  if (request.method === "OPTIONS") {
    if (![204, 400, 404].includes(status)) wrong.push(`${status} to OPTIONS`);
  } else if (line === undefined) {
    if (![400, 404, 405].includes(status)) wrong.push(`${status} for an unknown path`);
  } else {
    // A response to HEAD has the headers of GET, but no body to compare.
    const differences = documentation.differences(line, { status, headers: isHead ? withoutType(headers) : headers, body });
    wrong.push(...(isHead ? differences.filter((one) => !/^no type/.test(one)) : differences));
  }

  if (isHead && text !== "") wrong.push("a body to HEAD");
  if (request.refusals !== undefined && line === request.line && !allowedStatuses(request, request.refusals).includes(status))
    wrong.push(`${status}, ${THOUGH} ${request.faults.join(" and ")}`);
  const code = codeOf(body);
  if (request.faults.length === 0 && [400, 401, 403, 405, 413, 415, 422].includes(status) && !isHead && !mayBeRefused(request, code))
    wrong.push(`${status} ${code} ${VALID}`);
  return wrong;
}

function withoutType(headers: Headers): Headers {
  const rest = new Headers(headers);
  rest.delete("content-type");
  return rest;
}

/** The code of a problem, or of an error of OAuth. */
function codeOf(body: unknown): string {
  if (typeof body !== "object" || body === null) return "";
  if ("code" in body && typeof body.code === "string") return body.code;
  return "error" in body && typeof body.error === "string" ? body.error : "";
}

/** A gateway may refuse a precondition before a service finds that there is no such resource. */
const allowedStatuses = ({ headers }: FuzzRequest, refusals: readonly number[]): number[] => [
  ...refusals,
  ...(refusals.includes(404) && isGiven(headers, "if-match") ? [412] : []),
  429,
  503,
];

/** Whether a valid request may be refused for reasons that the document can't express. */
function mayBeRefused({ line, headers }: FuzzRequest, code: string): boolean {
  if (["INVALID_CREDENTIALS", "INVALID_REFRESH_TOKEN", "invalid_grant"].includes(code)) return true;
  if (code === "IDEMPOTENCY_KEY_REUSED") return isGiven(headers, "idempotency-key");
  return line === "POST /products/{id}/stock" && code === "VALIDATION_ERROR"; // exceeds a product's maximum quantity
}

/** RFC 6749, section 5.2; the document has the rest. */
const oauthErrors = (body: unknown): string[] =>
  /^(invalid_request|invalid_grant|unsupported_grant_type)$/.test(codeOf(body)) ? [] : [`an unknown error of OAuth: ${codeOf(body)}`];

function problemErrors(status: number, type: string, body: unknown, id: string): string[] {
  if (type !== "application/problem+json") return [`${status} as ${type || "nothing"}`];
  if (typeof body !== "object" || body === null) return ["a problem that is no object"];
  const code = codeOf(body);
  if (!isErrorCode(code)) return [`an unknown code ${code}`];
  const { status: expected, title } = ERRORS[code];
  const problem = body as Record<string, unknown>;
  return [
    ...(expected === status && problem["status"] === status && problem["title"] === title ? [] : [`${code} as ${status}`]),
    ...(problem["request_id"] === id ? [] : ["another request_id than in the header"]),
    ...(code === "VALIDATION_ERROR" && !Array.isArray(problem["errors"]) ? ["VALIDATION_ERROR without errors"] : []),
  ];
}
