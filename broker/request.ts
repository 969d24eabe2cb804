import { AsyncLocalStorage } from "node:async_hooks";
import { Errors, type CallingOptions, type Context, type Middleware, type ServiceBroker } from "moleculer";
import { TIMEOUT_STATUS, tooLate } from "./errors";

/** The request that the running code serves. */
export interface Request {
  /** Passed from node to node in the context. */
  readonly id: string | undefined;
  /** When its response is no longer needed, by `performance.now()`; Infinity if there is no deadline. */
  readonly deadline: number;
}

const current = new AsyncLocalStorage<Request>();

export const currentRequestId = (): string | undefined => current.getStore()?.id;
export const currentDeadline = (): number => current.getStore()?.deadline ?? Infinity;

/** Milliseconds until the deadline of the current request; may be negative. */
export const remainingMs = (): number => currentDeadline() - performance.now();

/** Runs `work` as part of a request, whose deadline may change meanwhile. */
export const asRequest = <T>(request: Request, work: () => T): T => current.run(request, work);
export const withRequest = <T>(id: string | undefined, deadline: number, work: () => T): T => asRequest({ id, deadline }, work);

/** Runs work as part of the current request, but without its deadline: for work that must not be left half done. */
export const withoutDeadline = <T>(work: () => T): T => withRequest(currentRequestId(), Infinity, work);

/** Runs work as part of the current request, under another id if one is given. */
export const withRequestId = <T>(id: string | undefined, work: () => T): T => (id ? withRequest(id, currentDeadline(), work) : work());

/**
 * Gives every action and event its request: the id for the log, and the deadline, which is sent as the milliseconds that are left. An action
 * whose deadline passed while it was queued in its node is not started: its caller has timed out.
 */
export const requests: Middleware = {
  name: "Requests",
  localAction: (next) =>
    function (ctx) {
      const deadline = deadlineOf(ctx);
      if (deadline <= performance.now())
        return Promise.reject(new Errors.RequestSkippedError({ action: ctx.action?.name ?? "", nodeID: ctx.nodeID ?? "" }));
      return withRequest(ctx.requestID ?? undefined, deadline, () => next.call(this, ctx) as Promise<unknown>);
    },
  remoteAction: (next) =>
    function (ctx) {
      return forgetWhenTimedOut(ctx as Context, next.call(this, ctx) as Promise<unknown>);
    },
  // An event has no deadline: its emitter does not need the result, even if the listeners are in the same process.
  localEvent: (next) => (ctx) => withRequest(ctx.requestID ?? undefined, Infinity, () => next(ctx)),
  call: limitRetryTimeout as unknown as NonNullable<Middleware["call"]>, // declared as if it returned no function
};

interface TimedOptions extends CallingOptions {
  wholeTimeMs?: number;
}
/** The option that says how much time the contract of a call allows: its timeout, and that of a retry, may be shorter. */
export const wholeTime = (wholeTimeMs: number): TimedOptions => ({ wholeTimeMs });
/** A call with a smaller part of its contract's time does not count against its node if it times out. */
const WHOLE_TIME = 0.9;

/** Errors of such calls. */
const ofCutCalls = new WeakSet<Error>();

/**
 * Whether a call has timed out that had the time of its contract, for the circuit breaker. The others must not count: requests that clients
 * complete just before their deadline would open it, and nobody could log in.
 */
export const isWholeTimeout = (error: Error): boolean =>
  error instanceof Errors.MoleculerError && error.code === TIMEOUT_STATUS && !ofCutCalls.has(error);

/**
 * Moleculer rejects a call that has timed out, but keeps it as pending. If RabbitMQ has dropped the request, no response ever arrives: the
 * call would stay pending as long as its node is available, and a stopping node would wait for it. Moleculer's own timer fires first, so
 * only the circuit breaker sees this error.
 */
function forgetWhenTimedOut({ id, nodeID, action, broker, options }: Context, response: Promise<unknown>): Promise<unknown> {
  const { timeout, wholeTimeMs = 0 }: TimedOptions = options;
  if (!timeout) return response;
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      broker.transit?.removePendingRequest(id);
      fail(new Errors.RequestTimeoutError({ action: action?.name ?? "", nodeID: nodeID ?? "" }));
    }, timeout + 1);
    const fail = (error: Error): void => {
      if (timeout < WHOLE_TIME * wholeTimeMs) ofCutCalls.add(error);
      reject(error);
    };
    response.then(resolve, fail).finally(() => {
      clearTimeout(timer);
    });
  });
}

/** Moleculer retries a call with the context of the first attempt and its full timeout; this reduces it to the time that is left. */
function limitRetryTimeout(next: ServiceBroker["call"]) {
  return (action: string, params: unknown, options?: CallingOptions & { ctx?: Context }): Promise<unknown> => {
    const retried = options?.ctx;
    if (retried?.options.timeout) {
      const leftMs = Math.floor(remainingMs());
      if (leftMs <= 0) return Promise.reject(tooLate());
      retried.options = { ...retried.options, timeout: Math.min(retried.options.timeout, leftMs) };
    }
    return next(action, params, options);
  };
}

/** Moleculer records when a call arrived, before it waits in the bulkhead, and its timeout from then on. */
function deadlineOf({ options: { timeout }, startHrTime }: Pick<Context, "options" | "startHrTime">): number {
  if (!timeout || timeout <= 0 || !startHrTime) return Infinity;
  const [seconds, nanoseconds] = process.hrtime(startHrTime);
  return performance.now() + timeout - (seconds * 1e3 + nanoseconds / 1e6);
}
