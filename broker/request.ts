import { AsyncLocalStorage } from "node:async_hooks";
import { Errors, type CallingOptions, type Context, type Middleware, type ServiceBroker } from "moleculer";
import { tooLate } from "./errors";

/** What the running code works for. */
export interface Request {
  /** Carried from node to node in the context. */
  readonly id: string | undefined;
  /** When nobody waits for its response any more, by `performance.now()`; Infinity where nobody said. */
  readonly deadline: number;
}

const current = new AsyncLocalStorage<Request>();

export const currentRequestId = (): string | undefined => current.getStore()?.id;
export const currentDeadline = (): number => current.getStore()?.deadline ?? Infinity;

/** Milliseconds that are left of the current request; may be negative. */
export const remainingMs = (): number => currentDeadline() - performance.now();

/** The deadline may change while it runs. */
export const asRequest = <T>(request: Request, work: () => T): T => current.run(request, work);
export const withRequest = <T>(id: string | undefined, deadline: number, work: () => T): T => asRequest({ id, deadline }, work);

/** As part of the current request, but to the end, however late: what must not be left half done. */
export const regardless = <T>(work: () => T): T => withRequest(currentRequestId(), Infinity, work);

/** As part of the current request, under another id where one is given. */
export const withRequestId = <T>(id: string | null | undefined, work: () => T): T =>
  id ? withRequest(id, currentDeadline(), work) : work();

/**
 * Gives every action and event its request: the id for the log, and the deadline, which travels as the milliseconds that
 * are left. An action that waited in its node until its time was over is not started: its caller has given up.
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
      return forgotten(ctx as Context, next.call(this, ctx) as Promise<unknown>);
    },
  // Whoever emitted it does not wait for what its listeners do, be they in the same process.
  localEvent: (next) => (ctx) => withRequest(ctx.requestID ?? undefined, Infinity, () => next(ctx)),
  call: inTime as unknown as NonNullable<Middleware["call"]>, // declared as if it returned no function
};

/**
 * Moleculer gives up a call that has timed out, but keeps waiting for its response, which never comes where RabbitMQ has dropped the request: the call
 * would be kept for as long as its node is there, and a node that stops would wait for it. Moleculer's own timer is the first of the two.
 */
function forgotten({ id, nodeID, action, broker, options: { timeout } }: Context, response: Promise<unknown>): Promise<unknown> {
  if (!timeout) return response;
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      broker.transit?.removePendingRequest(id);
      reject(new Errors.RequestTimeoutError({ action: action?.name ?? "", nodeID: nodeID ?? "" }));
    }, timeout + 1);
    response.then(resolve, reject).finally(() => {
      clearTimeout(timer);
    });
  });
}

/** Moleculer's retry of a call brings the context of the first attempt, with all of its time-out: what is left counts. */
function inTime(next: ServiceBroker["call"]) {
  return (action: string, params: unknown, options?: CallingOptions & { ctx?: Context }): Promise<unknown> => {
    const again = options?.ctx;
    if (again?.options.timeout) {
      const left = Math.floor(remainingMs());
      if (left <= 0) return Promise.reject(tooLate());
      again.options = { ...again.options, timeout: Math.min(again.options.timeout, left) };
    }
    return next(action, params, options);
  };
}

/** Moleculer notes when a call arrived, before it waits in the bulkhead, and how long it may take from then on. */
function deadlineOf({ options: { timeout }, startHrTime }: Pick<Context, "options" | "startHrTime">): number {
  if (!timeout || timeout <= 0 || !startHrTime) return Infinity;
  const [seconds, nanoseconds] = process.hrtime(startHrTime);
  return performance.now() + timeout - (seconds * 1e3 + nanoseconds / 1e6);
}
