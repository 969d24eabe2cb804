import type { TSchema } from "@sinclair/typebox";
import type { Context } from "moleculer";
import { call, type Meta } from "../../broker/contract";
import { problem } from "../../broker/errors";
import { check } from "../../broker/validator";
import { ownsDatabase } from "../../config";
import type { ActionContract, Params, Result } from "../../contracts/contract";
import type { ErrorCode } from "../../contracts/errors";
import type { Requester } from "../../mixins/batching";
import type { Gather } from "./gather";
import type { Input, Supply } from "./input";
import type { Lane } from "./lanes";
import type { Following } from "./streams";
import { textFields, withLineFeeds } from "./text";

export interface Reply<S extends number = number> {
  status: S;
  body?: unknown;
  /** As it is, in place of a body; JSON where the headers do not say otherwise. */
  text?: string | Buffer;
  /** The answer is a stream of this order's events, in place of a body. */
  follow?: Following;
  headers?: Readonly<Record<string, string>>;
}

/** A JSON body. */
export interface Body<P = Readonly<Record<string, unknown>>> {
  /** One that works, for the documentation. */
  example: Partial<P>;
  /** What may be sent as a form instead. */
  form?: TSchema;
}

/** What a route's documentation can't learn from its path and its contract. */
interface Told<S extends number> {
  /** A sentence for a person. */
  summary: string;
  /** Every status that it answers with, but those of problems. */
  answers: readonly S[];
  /** The refusals of its own; what every route of its kind may answer is known. */
  errors: readonly ErrorCode[];
  /** The types of what it answers with, where that is no JSON. */
  media?: readonly string[];
}

/** One way into the shop, and all that is documented of it. */
export interface Route extends Told<number> {
  /** Who may use it. There is no default: a route that forgets it does not compile. */
  auth: "public" | "user" | "admin";
  body: "none" | Body;
  /** What it takes and answers with. A `version` in an answer goes into the ETag. */
  contract: ActionContract;
  supplied: Readonly<Record<string, Supply>>;
  /** Whose turn it waits for; `none` where its calls are batched, or it makes none. */
  lane: Lane | "none";
  /** Checks what a request brings, at once. @returns what it asks for, done when it is its turn */
  read(input: Input): Perform;
}

export type Perform = (ctx: Context<unknown, Meta>, gather: Gather) => Promise<Reply>;

/** A route without parameters, body or errors of its own. It still says who may use it. */
export const TAKES_NOTHING = { errors: [], body: "none", supplied: {}, lane: "none" } as const;

/** By method and path. */
export type Routes = Readonly<Record<string, Route>>;

type ParamsOf = (input: Input, supplied: Readonly<Record<string, unknown>>) => Record<string, unknown>;

interface Spec<C extends ActionContract, S extends number> extends Told<S> {
  action: C;
  auth: Route["auth"];
  body?: Body<Params<C>>;
  /** Params that come from the path and from headers. A body or a query can't supply those, nor override them. */
  supplied?: Partial<Record<keyof Params<C>, Supply>>;
  /** All params, where they are more than those supplied. */
  params?: ParamsOf;
  /** How it is called, where it is batched. */
  perform?: (gather: Gather, params: Params<C>, requester: Requester, ctx: Context<unknown, Meta>) => Promise<Result<C>>;
  /** Where it is not that of the service. */
  lane?: Lane;
  /** What a client is shown, where that is not the action's result. */
  shows?: TSchema;
  reply: (result: Result<C>, input: Input) => Reply<NoInfer<S>>;
}

/** Calls of a service take turns with each other. */
function laneOf({ name }: ActionContract): Lane {
  const [service = ""] = name.split(".");
  return ownsDatabase(service) ? service : "operations";
}

const onlySupplied: ParamsOf = (_input, supplied) => supplied;

/** What comes from outside is judged by the action's contract, here as well as there: what breaks it is not even sent. */
export function route<C extends ActionContract, S extends number>(spec: Spec<C, S>): Route {
  const { action, auth, body = "none", params = onlySupplied, perform, shows, reply, lane = laneOf(action), ...told } = spec;
  const supplied: Route["supplied"] = { ...spec.supplied };
  const supplies = Object.entries(supplied);
  const texts = textFields(action.params);
  return {
    ...told,
    auth,
    body,
    supplied,
    lane: perform ? "none" : lane,
    contract: shows ? { ...action, result: shows } : action,
    read: (input) => {
      const ours = Object.fromEntries(supplies.map(([name, { read }]) => [name, read(input)]));
      // Before anything is checked: a limit counts what is stored, and requests that differ in line endings alone are the same.
      const given = params({ ...input, query: withLineFeeds(input.query, texts), body: withLineFeeds(input.body, texts) }, ours);
      const errors = check(action.params, given);
      if (errors.length > 0) throw problem("VALIDATION_ERROR", "the request breaks its contract", { errors });
      return async (ctx, gather) => reply(await (perform ? perform(gather, given, input.requester, ctx) : call(ctx, action, given)), input);
    },
  };
}
