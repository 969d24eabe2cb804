import type { TSchema } from "@sinclair/typebox";
import type { Context } from "moleculer";
import { call, type Meta } from "../../../broker/contract";
import { problem } from "../../../broker/errors";
import { check } from "../../../broker/validator";
import { ownsDatabase } from "../../../config";
import type { ActionContract, Params, Result } from "../../../contracts/contract";
import type { ErrorCode } from "../../../contracts/errors";
import type { Requester } from "../../../mixins/batching";
import type { BatchedCalls } from "../batched-calls";
import { checkPreconditions, idempotencyKey, refuseQuery, type Input, type Supply } from "./input";
import type { Lane } from "./lanes";
import type { Following } from "../streams/order-stream";
import type { Watching } from "../streams/streams";
import { normalized, textFields } from "./text";

export interface HttpResponse<S extends number = number> {
  status: S;
  body?: unknown;
  /** Sent as it is, in place of `body`; JSON unless `headers` has another type. */
  text?: string | Buffer;
  /** Makes the response a stream of this order's events, or of the shop's state, in place of a body. */
  follow?: Following | Watching;
  headers?: Readonly<Record<string, string>>;
}

/** A JSON body. */
export interface Body<P = Readonly<Record<string, unknown>>> {
  /** A valid body, for the OpenAPI document. */
  example: Partial<P>;
  /** Accepted as well; `Input.body` is then a `Form`. */
  form?: FormBody;
}

/** A body of application/x-www-form-urlencoded, with its own kind of errors. */
export interface FormBody {
  schema: TSchema;
  /** Schema of its errors, which have the status 400. */
  error: TSchema;
  /** The response to an error; undefined if it is a problem as for JSON. */
  refusal(error: unknown): HttpResponse<400> | undefined;
}

/** What the OpenAPI document can't derive from a route's path and contract. */
interface Documented<S extends number> {
  /** A sentence for people. */
  summary: string;
  /** More about it, in Markdown. */
  description?: string;
  /** Every status of its responses, except problems. */
  statuses: readonly S[];
  /** Its own error codes, without those of every route of its kind. */
  errors: readonly ErrorCode[];
  /** Media types of its responses, if not JSON. */
  media?: readonly string[];
  /**
   * Takes effect once per Idempotency-Key. Its action reads the key from the call's meta and does its work through `once`
   * (mixins/idempotency.ts). A batched call, which has no meta of its own, takes the key as a param, and `perform` sets `replayed`.
   */
  takesIdempotencyKey?: true;
}

/** A public route and its documentation. */
export interface Route extends Documented<number> {
  /** Who may use it. There is no default: a route that forgets it does not compile. */
  auth: "public" | "user" | "admin";
  /** `empty`: a body is optional, and has no fields. */
  body: "none" | "empty" | Body;
  /** Its params and result. `version` and `edits` in the result go into the ETag. */
  contract: ActionContract;
  supplied: Readonly<Record<string, Supply>>;
  /** The lane that its calls wait in; `none` if its calls are batched or it makes none. */
  lane: Lane | "none";
  /** Validates a request at once. @returns the work, to be done when the request's turn comes */
  read(input: Input): Perform;
}

export type Perform = (ctx: Context<unknown, Meta>, batched: BatchedCalls) => Promise<HttpResponse>;

/** A route without parameters, body or errors of its own. It still says who may use it. */
export const TAKES_NOTHING = { errors: [], body: "none", supplied: {}, lane: "none" } as const;

/** Routes by method and path. */
export type Routes = Readonly<Record<string, Route>>;

type ParamsOf = (input: Input, supplied: Readonly<Record<string, unknown>>) => Record<string, unknown>;

interface Spec<C extends ActionContract, S extends number> extends Documented<S> {
  action: C;
  auth: Route["auth"];
  body?: "empty" | Body<Params<C>>;
  /** Params from the path, headers or the connection. A body or a query can't supply or override them. */
  supplied?: Partial<Record<keyof Params<C>, Supply>>;
  /** Builds all params, if there are more than those supplied. */
  params?: ParamsOf;
  /** Makes the call, if it is batched. */
  perform?: (batched: BatchedCalls, params: Params<C>, requester: Requester, ctx: Context<unknown, Meta>) => Promise<Result<C>>;
  /** The lane, if not that of the service. */
  lane?: Lane;
  /** Schema of the response, if it is not the action's result. */
  shows?: TSchema;
  respond: (result: Result<C>, input: Input) => HttpResponse<NoInfer<S>>;
}

/** By default, the calls of one service share a lane. */
function laneOf({ name }: ActionContract): Lane {
  const [service = ""] = name.split(".");
  return ownsDatabase(service) ? service : "operations";
}

const onlySupplied: ParamsOf = (input, supplied) => {
  refuseQuery(input);
  return supplied;
};

/** A route that validates requests by the action's contract, as the service does again: an invalid request is not even sent to it. */
export function route<C extends ActionContract, S extends number>(spec: Spec<C, S>): Route {
  const { action, auth, body = "none", params = onlySupplied, perform, shows, respond, lane = laneOf(action), ...documented } = spec;
  const supplied: Route["supplied"] = { ...spec.supplied };
  const supplies = Object.entries(supplied);
  const takesIfMatch = supplies.some(([, { header }]) => header?.name === "If-Match");
  const texts = textFields(action.params);
  return {
    ...documented,
    auth,
    body,
    supplied,
    lane: perform ? "none" : lane,
    contract: shows ? { ...action, result: shows } : action,
    read: (input) => {
      const ours = Object.fromEntries(supplies.map(([name, { read }]) => [name, read(input)]));
      const key = documented.takesIdempotencyKey ? idempotencyKey(input) : undefined;
      // Before validation, since length limits apply to the stored text, and requests that differ only in line endings must be equal.
      const given = normalized(params({ ...input, query: normalized(input.query, texts) }, ours), texts);
      const errors = check(action.params, given);
      if (errors.length > 0) throw problem("VALIDATION_ERROR", "the request breaks its contract", { errors });
      checkPreconditions(input, takesIfMatch);
      return async (ctx, batched) => {
        if (key !== undefined) ctx.meta.idempotencyKey = key;
        const made = respond(await (perform ? perform(batched, given, input.requester, ctx) : call(ctx, action, given)), input);
        return ctx.meta.replayed === true ? asReplay(made) : made;
      };
    },
  };
}

const asReplay = (response: HttpResponse): HttpResponse => ({
  ...response,
  headers: { ...response.headers, "Idempotent-Replayed": "true" },
});
