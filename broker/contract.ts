import type { Static, TSchema } from "@sinclair/typebox";
import type {
  ActionSchema,
  CallingOptions,
  Context,
  EventSchema,
  Service,
  ServiceBroker,
  ServiceSchema,
  ServiceSettingSchema,
} from "moleculer";
import { parseId, type ActionContract, type EventContract, type FailedItem, type Params, type Result } from "../contracts/contract";
import type { Caller } from "../contracts/users";
import { failedItem, problem, tooLate } from "./errors";
import { canDeliver } from "./listeners";
import { logFailure } from "./logger";
import { currentRequestId, remainingMs, withRequestId } from "./request";

export interface Meta {
  user?: Caller;
  /** The client's, where the user is an admin: for the audit log. */
  address?: string;
  /** The call comes from a console or a script on a node of our own, in nobody's name. A gateway never sets this. */
  system?: true;
}

/** Options of a call that the shop itself makes, for actions that are for admins. New ones each time: Moleculer writes into a call's meta. */
export const asSystem = (): { meta: Meta } => ({ meta: { system: true } });

/** The context of an action or event whose params have passed its contract. */
export type ContractContext<P extends TSchema> = Context<Static<P>, Meta>;

/** A schema whose handlers have a `this` of their service's own shape. */
export type SchemaFor<This> = ServiceSchema<
  ServiceSettingSchema & Record<string, unknown>,
  Record<string, unknown>,
  Record<string, unknown>,
  This
>;

/** Options that Moleculer honours but does not declare. */
type Options = Pick<ActionSchema, "bulkhead">;

/** For work that waits in a fair queue: in a bulkhead, first come, first served, one client could hold every place before it. */
export const FAIR: Options = { bulkhead: { enabled: false } };

/**
 * Makes a Moleculer action of its contract, under the contract's name, whatever its key in `actions`. It can be called by other nodes and in the REPL; whether the world can
 * reach it is said by the gateway's routes alone.
 */
export function implement<C extends ActionContract, This>(
  contract: C,
  handler: (this: This, ctx: ContractContext<C["params"]>) => Promise<Result<C>>,
  options: Options = {},
): ActionSchema<This> {
  const schema = {
    ...options,
    name: contract.name.slice(contract.name.indexOf(".") + 1),
    visibility: "public",
    params: contract.params,
    result: contract.result,
    timeout: contract.timeout,
    // For callers that name no number of retries, the REPL and other nodes among them.
    retryPolicy: { enabled: true, retries: contract.repeatable ? 1 : 0 },
    handler,
  };
  return schema as ActionSchema<This>; // TypeBox' types are interfaces, Moleculer's ask for index signatures
}

/**
 * Answers many items that travelled together, each by itself: with its result, or with the error that it would have met alone.
 * @param work gets each item with its own request's id in place, where it has one
 */
export function answerEach<Item extends object, R>(
  service: Service,
  what: string,
  items: readonly Item[],
  work: (item: Item) => Promise<R>,
): Promise<(R | FailedItem)[]> {
  return Promise.all(
    items.map((item) => {
      const id = "request_id" in item && typeof item.request_id === "string" ? item.request_id : currentRequestId();
      return withRequestId(id, () => work(item)).catch((error: unknown) => {
        logFailure(service.logger, what, error, id);
        return failedItem(error);
      });
    }),
  );
}

/** Makes a Moleculer event handler of its contract. */
export function subscribe<P extends TSchema, This>(
  contract: EventContract<P>,
  handler: (this: This, ctx: ContractContext<P>) => Promise<void>,
  options: Options = {},
): EventSchema {
  return { ...options, params: contract.params, handler }; // as above
}

/** A call with less time than this would be given up before its response, and count as a failure of its node. */
const MIN_CALL_MS = 50;

/**
 * Calls an action by its contract, from inside a request or from a broker. The id of the current request travels with it,
 * and what is left of its time, where that is less than the contract allows.
 * @throws SERVICE_UNAVAILABLE where next to no time is left: the call is not made
 */
export function call<C extends ActionContract>(
  from: Context<unknown, object> | ServiceBroker,
  contract: C,
  params: Params<C>,
  options: CallingOptions = {},
): Promise<Result<C>> {
  const requestID = currentRequestId(); // a broker, unlike a context, does not know for whom it works
  const timeout = Math.min(contract.timeout, Math.floor(remainingMs()));
  if (timeout < MIN_CALL_MS) return Promise.reject(tooLate());
  return from.call<Result<C>, Params<C>>(contract.name, params, {
    timeout,
    ...(requestID !== undefined && { requestID }),
    ...options,
  });
}

export function emit<P extends TSchema>(broker: ServiceBroker, contract: EventContract<P>, payload: Static<P>): Promise<void> {
  return broker.emit(contract.name, payload);
}

/** Tells every node that listens now, and waits for nothing: for news whose loss is harmless. */
export function broadcast<P extends TSchema>(broker: ServiceBroker, contract: EventContract<P>, payload: Static<P>): void {
  if (canDeliver(broker, contract.name)) void broker.broadcast(contract.name, payload); // never rejects
}

/** The caller of an action that needs one. A user id without a role, as typed in the REPL, is a `user`. */
export function callerOf(ctx: Context<unknown, Meta>): Caller {
  const user = ctx.meta.user;
  const id = user ? parseId(user.id) : undefined;
  if (!user || id === undefined) throw problem("UNAUTHENTICATED", "this needs a user");
  return { id, role: user.role === "admin" ? "admin" : "user", ...(user.session !== undefined && { session: user.session }) };
}

/** Who does what only admins may: one of them, from an address, or the shop itself (`system`). */
export interface Admin {
  actor: string;
  address?: string;
}

/**
 * The admin who calls. Actions that are for admins ask for it, whatever the route in front of them has checked.
 * @throws UNAUTHENTICATED, FORBIDDEN
 */
export function adminOf(ctx: Context<unknown, Meta>, refusal = "this is for admins"): Admin {
  const { user, system, address } = ctx.meta;
  if (user === undefined && system === true) return { actor: "system" };
  const { id, role } = callerOf(ctx);
  if (role !== "admin") throw problem("FORBIDDEN", refusal);
  return { actor: id, ...(address !== undefined && { address }) };
}
