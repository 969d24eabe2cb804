import { isReducible } from "./judge";
import type { FuzzRequest } from "./request";

/** Maximum number of requests sent to find a smaller one. */
const MAX_TRIES = 300;

/** All requests that are one step smaller than this one. */
function* smaller(request: FuzzRequest): Generator<FuzzRequest> {
  for (let i = 0; i < request.query.length; i++) yield { ...request, query: request.query.toSpliced(i, 1) };
  for (let i = 0; i < request.headers.length; i++)
    if (request.headers[i]?.[0] !== "X-Request-Id") yield { ...request, headers: request.headers.toSpliced(i, 1) };
  if (request.authorization !== undefined) {
    const { authorization: _dropped, ...rest } = request;
    yield rest;
  }
  if (!request.hasHost) yield { ...request, hasHost: true };
  const { body } = request;
  if (body !== undefined) {
    const { body: _dropped, ...rest } = request;
    yield rest;
    for (const name of ["coding", "chunked", "cut"] as const) {
      if (body[name] === undefined) continue;
      const { [name]: _option, ...less } = body;
      yield { ...request, body: less };
    }
    for (const json of smallerValues(body.json)) yield { ...request, body: { ...body, json } };
    for (let i = 0; i < (body.form?.length ?? 0); i++) yield { ...request, body: { ...body, form: body.form?.toSpliced(i, 1) ?? [] } };
    if (body.raw && body.raw.length > 1) yield { ...request, body: { ...body, raw: body.raw.subarray(0, Math.ceil(body.raw.length / 2)) } };
  }
  for (const [i, [name, value]] of request.query.entries())
    if (value.length > 8) yield { ...request, query: request.query.with(i, [name, value.slice(0, Math.ceil(value.length / 2))]) };
  for (const [i, [name, value]] of request.headers.entries())
    if (value.length > 16 && name !== "X-Request-Id")
      yield { ...request, headers: request.headers.with(i, [name, value.slice(0, Math.ceil(value.length / 2))]) };
}

function* smallerValues(value: unknown): Generator {
  if (typeof value === "string" && value.length > 1) yield value.slice(0, Math.ceil(value.length / 2));
  if (typeof value !== "object" || value === null) return;
  if (Array.isArray(value)) {
    if (value.length > 8) yield value.slice(0, Math.ceil(value.length / 2));
    for (let i = 0; i < Math.min(8, value.length); i++) {
      yield value.toSpliced(i, 1);
      for (const less of smallerValues(value[i])) yield value.with(i, less);
    }
    return;
  }
  for (const [name, its] of Object.entries(value)) {
    yield Object.fromEntries(Object.entries(value).filter(([other]) => other !== name));
    for (const less of smallerValues(its)) yield { ...value, [name]: less };
  }
}

/**
 * Reduces a request as long as it still fails. Each step takes the first smaller request that fails.
 * @param wrong the failure; some failures need the whole request
 * @returns the smallest request found; undefined if the original doesn't fail a second time
 */
export async function shrink(
  request: FuzzRequest,
  wrong: readonly string[],
  fails: (request: FuzzRequest) => Promise<boolean>,
): Promise<FuzzRequest | undefined> {
  if (!isReducible(wrong)) return request;
  if (!(await fails(request))) return undefined;
  let least = request;
  let tries = 0;
  for (let found = true; found && tries < MAX_TRIES;) {
    found = false;
    for (const candidate of smaller(least)) {
      if (++tries > MAX_TRIES) break;
      if (!(await fails(candidate))) continue;
      least = candidate;
      found = true;
      break;
    }
  }
  return least;
}
