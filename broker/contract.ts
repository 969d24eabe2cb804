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
import { currentRequestId, remainingMs, wholeTime, withRequestId } from "./request";

export interface Meta {
  user?: Caller;
  /** The client's address if the user is an admin, for the audit log. */
  address?: string;
  /** The call comes from a console or script on one of the shop's own nodes, not from a user. A gateway never sets this. */
  system?: true;
  /**
   * The client's Idempotency-Key, for an action wrapped in `once` (mixins/idempotency.ts). Not a param, since nodes of version 0.2.0 refuse
   * unknown params.
   */
  idempotencyKey?: string;
  /** Set by the action: its result is the response to an earlier request with the same key. */
  replayed?: boolean;
}

/** Call options with which the shop itself may call actions for admins. A new object each time, since Moleculer modifies a call's meta. */
export const asSystem = (): { meta: Meta } => ({ meta: { system: true } });

/** The context of an action or event whose params have been validated by its contract. */
type ContractContext<P extends TSchema> = Context<Static<P>, Meta>;

/** A service schema whose handlers have the service's own type as `this`. */
export type SchemaFor<This> = ServiceSchema<
  ServiceSettingSchema & Record<string, unknown>,
  Record<string, unknown>,
  Record<string, unknown>,
  This
>;

/** Moleculer supports this for events, too, but declares it only for actions. */
type Options = Pick<ActionSchema, "bulkhead">;

/** For work with a fair queue: a bulkhead in front of it is first come, first served, and one client could hold all its places. */
export const FAIR: Options = { bulkhead: { enabled: false } };

/**
 * Makes a Moleculer action from its contract, under the contract's name, whatever its key in `actions`. Other nodes and the REPL can call it;
 * only the gateway's routes make it available to clients.
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
    timeout: contract.timeoutMs,
    // For callers that set no number of retries, such as the REPL and other nodes.
    retryPolicy: { enabled: true, retries: contract.idempotent ? 1 : 0 },
    handler,
  };
  return schema as ActionSchema<This>; // TypeBox' types are interfaces, Moleculer's require index signatures
}

/**
 * Handles the items of a batched call individually: each gets its result, or the error that it would have got in a call of its own.
 * @param work is called for each item, as part of the item's own request if it has a `request_id`
 */
export function handleEach<Item extends object, R>(
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

/** Makes a Moleculer event handler from its contract. */
export function subscribe<P extends TSchema, This>(
  contract: EventContract<P>,
  handler: (this: This, ctx: ContractContext<P>) => Promise<void>,
  options: Options = {},
): EventSchema {
  return { ...options, params: contract.params, handler }; // see `implement`
}

/** A call with less time than this would time out before its response. */
const MIN_CALL_MS = 50;

/**
 * Calls an action by its contract, from inside a request or from a broker. The call carries the id of the current request. Its timeout is
 * the contract's, or what is left until the request's deadline if that is less.
 * @throws SERVICE_UNAVAILABLE without making the call if almost no time is left
 */
export function call<C extends ActionContract>(
  from: Context<unknown, object> | ServiceBroker,
  contract: C,
  params: Params<C>,
  options: CallingOptions = {},
): Promise<Result<C>> {
  const requestID = currentRequestId(); // a broker, unlike a context, does not know the current request
  const timeout = Math.min(contract.timeoutMs, Math.floor(remainingMs()));
  if (timeout < MIN_CALL_MS) return Promise.reject(tooLate());
  return from.call<Result<C>, Params<C>>(contract.name, params, {
    timeout,
    ...wholeTime(contract.timeoutMs),
    ...(requestID !== undefined && { requestID }),
    ...options,
  });
}

/** Sends an event to every node that listens now, without waiting: for notifications whose loss is harmless. */
export function broadcast<P extends TSchema>(broker: ServiceBroker, contract: EventContract<P>, payload: Static<P>): void {
  if (canDeliver(broker, contract.name)) void broker.broadcast(contract.name, payload); // never rejects
}

/** The caller of an action that needs one. A user id without a role, as typed in the REPL, has the role `user`. @throws UNAUTHENTICATED */
export function callerOf(ctx: Context<unknown, Meta>): Caller {
  const user = ctx.meta.user;
  const id = user ? parseId(user.id) : undefined;
  if (!user || id === undefined) throw problem("UNAUTHENTICATED", "this requires a user");
  return { id, role: user.role === "admin" ? "admin" : "user", ...(user.session !== undefined && { session: user.session }) };
}

/** Who may see what: a user, or the shop itself, which has the permissions of an admin and no id. */
export type Viewer = Pick<Caller, "role"> & { id?: string };

/** The user who calls, or the shop itself (`system`) if the call names no user. @throws UNAUTHENTICATED */
export const viewerOf = (ctx: Context<unknown, Meta>): Viewer =>
  ctx.meta.user === undefined && ctx.meta.system === true ? { role: "admin" } : callerOf(ctx);

/** Who performs an action for admins: an admin and their address, or the shop itself (`system`). */
export interface Admin {
  actor: string;
  address?: string;
}

/**
 * The admin who calls. Actions for admins check this themselves, whatever the gateway's route has checked.
 * @throws UNAUTHENTICATED, FORBIDDEN
 */
export function adminOf(ctx: Context<unknown, Meta>, refusal = "this is for admins"): Admin {
  const { user, system, address } = ctx.meta;
  if (user === undefined && system === true) return { actor: "system" };
  const { id, role } = callerOf(ctx);
  if (role !== "admin") throw problem("FORBIDDEN", refusal);
  return { actor: id, ...(address !== undefined && { address }) };
}
