import type { components } from "./schema.js";

/** What the shop says about a refused request (RFC 9457), with a stable `code`. */
export type Problem = components["schemas"]["Problem"];

/** A refused request. `problem` is undefined if something else than the shop has responded, such as a proxy. */
export class ShopError extends Error {
  override readonly name = "ShopError";

  constructor(
    readonly status: number,
    readonly problem: Problem | undefined,
  ) {
    super(problem?.detail ?? `the server responded with status ${status}`);
  }

  /** The stable code, such as INSUFFICIENT_STOCK. */
  get code(): string | undefined {
    return this.problem?.code;
  }
}

/** The result of a call of `shop.api`. */
interface Outcome<Data> {
  data?: Data | undefined;
  error?: unknown;
  response: Response;
}

/**
 * The data of a call, for callers that prefer an exception to a result with an `error`.
 * @throws ShopError
 */
export async function dataOf<Data>(call: Promise<Outcome<Data>>): Promise<Data> {
  const { data, error, response } = await call;
  if (!response.ok) throw new ShopError(response.status, isProblem(error) ? error : undefined);
  return data as Data; // a response with a 2xx status has it, or has none by contract (204)
}

/** Reads the body of a response that is no success. */
export async function errorOf(response: Response): Promise<ShopError> {
  const body: unknown = await response.json().catch(() => undefined); // a proxy's page is not JSON
  return new ShopError(response.status, isProblem(body) ? body : undefined);
}

const isProblem = (body: unknown): body is Problem =>
  typeof body === "object" && body !== null && "code" in body && typeof body.code === "string" && "detail" in body;
