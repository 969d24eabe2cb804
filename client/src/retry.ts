/** Sends a request. Unlike the global function, it always takes a `Request`. */
export type Fetch = (request: Request) => Promise<Response>;

const FIRST_WAIT_MS = 250;
const MAX_WAIT_MS = 5_000;

/** The statuses of a failure that may be over in a moment: limits, overload, and a gateway that is being replaced. */
const PASSING = [429, 502, 503, 504];

type Outcome = { response: Response } | { error: unknown };

/**
 * Repeats a request that failed for a moment, with growing waits or the shop's `Retry-After`.
 * @param attempt sends the request
 * @param retryForMs time after which it is not repeated any longer, in ms; 0: never
 * @throws what the last attempt threw
 */
export async function retry(attempt: () => Promise<Response>, retryForMs: number, signal?: AbortSignal): Promise<Response> {
  const until = performance.now() + retryForMs;
  for (let waitMs = FIRST_WAIT_MS; ; waitMs = Math.min(2 * waitMs, MAX_WAIT_MS)) {
    const outcome = await attempt().then(
      (response): Outcome => ({ response }),
      (error: unknown): Outcome => ({ error }),
    );
    const pauseMs = await pauseAfter(outcome, waitMs * (0.5 + Math.random()));
    if (pauseMs === undefined || performance.now() + pauseMs >= until || signal?.aborted === true) {
      if ("error" in outcome) throw outcome.error;
      return outcome.response;
    }
    if ("response" in outcome) discard(outcome.response);
    await pause(pauseMs, signal);
  }
}

/**
 * Retries GET and POST. A POST has an `Idempotency-Key`, so it takes effect once, however often it arrives. A PATCH, PUT or DELETE is not
 * retried: after a lost response, its repetition could be refused.
 */
export const retrying =
  (fetch: Fetch, retryForMs: number): Fetch =>
  (request) =>
    retry(() => fetch(request.clone()), ["GET", "HEAD", "POST"].includes(request.method) ? retryForMs : 0, request.signal);

/** Gives a POST a key of its own, unless it has one. To be done once per request, before anything may repeat it. */
export function addKey({ method, headers }: Request): void {
  // Not randomUUID, which pages have on secure origins only.
  const random = (): string =>
    Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
  if (method === "POST" && !headers.has("Idempotency-Key")) headers.set("Idempotency-Key", random());
}

/** Frees the connection of a response that nobody reads. */
export function discard(response: Response): void {
  response.body?.cancel().catch(() => undefined); // it may have failed already
}

/** The shop's code of a response that is no success, which can still be read afterwards. */
export async function codeOf(response: Response): Promise<unknown> {
  const body: unknown = await response
    .clone()
    .json()
    .catch(() => undefined); // a proxy's page is not JSON
  return typeof body === "object" && body !== null && "code" in body ? body.code : undefined;
}

/** How long to wait before a retry, in ms; undefined if a retry would not help. */
async function pauseAfter(outcome: Outcome, waitMs: number): Promise<number | undefined> {
  if ("error" in outcome) return waitMs; // no response: the network, or a gateway that is gone
  const { status, headers } = outcome.response;
  // The first attempt is still in progress, and its response is lost.
  if (status === 409 && (await codeOf(outcome.response)) === "IDEMPOTENCY_IN_FLIGHT") return waitMs;
  if (!PASSING.includes(status)) return undefined;
  const seconds = Number(headers.get("Retry-After") ?? 0);
  return Number.isFinite(seconds) ? Math.max(waitMs, seconds * 1_000) : waitMs;
}

/** @throws the signal's reason when it aborts */
export function pause(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const abort = (): void => {
      clearTimeout(timer);
      reject(signal?.reason as Error);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", abort);
      resolve();
    }, ms);
    if (signal?.aborted === true) abort();
    else signal?.addEventListener("abort", abort, { once: true });
  });
}
