import { call, callerOf, type Meta } from "../../broker/contract";
import { problem } from "../../broker/errors";
import { check } from "../../broker/validator";
import type { Context } from "moleculer";
import type { ActionContract, Params, Result } from "../../contracts/contract";
import type { Order } from "../../contracts/orders";
import * as orders from "../../contracts/orders";
import type { Product } from "../../contracts/products";
import * as products from "../../contracts/products";
import * as users from "../../contracts/users";
import type { Gather } from "./gather";
import { bodyParams, idempotencyKey, ifMatch, isNotModified, pathId, queryParams, type Input } from "./input";

export interface Reply {
  status: number;
  body?: unknown;
  /** JSON, in place of a body. */
  text?: string;
  headers?: Readonly<Record<string, string>>;
}

/** One way into the shop. What is not listed below can't be reached from outside. */
export interface Route {
  auth: "public" | "user" | "admin";
  /** What kind of body it takes, if any. */
  body: "none" | "json" | "json or form";
  handle(ctx: Context<unknown, Meta>, input: Input, gather: Gather): Promise<Reply>;
}

interface Spec<C extends ActionContract> {
  action: C;
  auth?: Route["auth"];
  body?: Route["body"];
  params?: (input: Input) => Record<string, unknown>;
  /** How it is called, where not by itself. */
  perform?: (gather: Gather, params: Params<C>, ctx: Context<unknown, Meta>) => Promise<Result<C>>;
  reply: (result: Result<C>, input: Input) => Reply;
}

/** What comes from outside is judged by the action's contract, here as well as there: what breaks it is not even sent. */
function route<C extends ActionContract>({ action, auth = "public", body = "none", params = () => ({}), perform, reply }: Spec<C>): Route {
  return {
    auth,
    body,
    handle: async (ctx, input, gather) => {
      const given = params(input);
      const errors = check(action.params, given);
      if (errors.length > 0) throw problem("VALIDATION_ERROR", "the request breaks its contract", { errors });
      return reply(await (perform ? perform(gather, given, ctx) : call(ctx, action, given)), input);
    },
  };
}

const ok = (body: unknown, headers: Record<string, string> = {}): Reply => ({ status: 200, body, headers });
const created = (location: string, body: unknown, headers: Record<string, string> = {}): Reply => ({
  status: 201,
  body,
  headers: { Location: location, ...headers },
});
const noContent = (): Reply => ({ status: 204 });

/** The version goes into the ETag and not into the body. */
function entity<T extends { version: number }>({ version, ...body }: T): { body: Omit<T, "version">; headers: { ETag: string } } {
  return { body, headers: { ETag: `"${version}"` } };
}
const show = <T extends { version: number }>(thing: T, input: Pick<Input, "headers">): Reply =>
  isNotModified(input, thing.version) ? { status: 304, headers: entity(thing).headers } : ok(entity(thing).body, entity(thing).headers);

function list<T extends { version: number }>(
  path: string,
  { items, next_cursor }: { items: T[]; next_cursor: string | null },
  input: Input,
): Reply {
  let text = texts.get(items);
  if (text === undefined) texts.set(items, (text = JSON.stringify({ items: items.map((item) => entity(item).body), next_cursor })));
  return { status: 200, text, headers: nextLink(path, input, next_cursor) };
}

/** Requests that share a page share its text. */
const texts = new WeakMap<object, string>();

/** RFC 8288: the same list, from the cursor on. */
function nextLink(path: string, input: Input, cursor: string | null): Record<string, string> {
  if (cursor === null) return {};
  const query = new URLSearchParams(Object.entries(input.query).map(([name, value]): [string, string] => [name, String(value)]));
  query.set("cursor", cursor);
  return { Link: `<${path}?${query.toString()}>; rel="next"` };
}

const showProduct = (product: Product): Reply => ok(entity(product).body, entity(product).headers);
const showOrder = (order: Order): Reply => ok(entity(order).body, entity(order).headers);

/** RFC 6749, section 4.3.2: the password grant's form, beside the JSON that everyone else sends. */
function credentials(input: Input): Record<string, unknown> {
  const params = bodyParams(input, { address: input.address });
  if (!("grant_type" in params) && !("username" in params)) return params;
  const { grant_type, username, scope: _scope, client_id: _client, ...rest } = params;
  return {
    ...(grant_type !== "password" && { grant_type }),
    ...(username !== undefined && { email: username }),
    ...rest,
  };
}

/** RFC 6749, section 5.1. */
const tokens = (granted: users.Tokens): Reply => ok(granted, { "Cache-Control": "no-store", Pragma: "no-cache" });

/** The hottest read; `pathId` is all the check that it needs. */
export const readProduct = async (input: Pick<Input, "path" | "headers">, gather: Gather): Promise<Reply> =>
  show(await gather.product(pathId(input, "PRODUCT_NOT_FOUND")), input);

export const ROUTES: Readonly<Record<string, Route>> = {
  "POST /register": route({
    action: users.register,
    body: "json",
    params: bodyParams,
    reply: (user) => created("/me", user, { "Cache-Control": "no-store" }),
  }),
  "POST /token": route({
    action: users.token,
    body: "json or form",
    params: credentials,
    reply: tokens,
  }),
  "POST /token/refresh": route({ action: users.refresh, body: "json", params: bodyParams, reply: tokens }),
  "POST /logout": route({ action: users.logout, body: "json", params: bodyParams, reply: noContent }),
  "GET /me": route({ action: users.me, auth: "user", reply: (user) => ok(user) }),
  "PUT /me/password": route({ action: users.changePassword, auth: "user", body: "json", params: bodyParams, reply: noContent }),
  "GET /.well-known/jwks.json": route({
    action: users.jwks,
    reply: (keys) => ok(keys, { "Cache-Control": "public, max-age=300" }),
  }),

  "POST /products": route({
    action: products.create,
    auth: "user",
    body: "json",
    params: bodyParams,
    reply: (product) => created(`/products/${product.id}`, entity(product).body, entity(product).headers),
  }),
  "GET /products": route({
    action: products.list,
    params: (input) => queryParams(input, products.list, "refuse"),
    perform: (gather, params) => gather.products(params),
    reply: (page, input) => list("/products", page, input),
  }),
  "GET /products/:id": { auth: "public", body: "none", handle: (_ctx, input, gather) => readProduct(input, gather) },
  "PATCH /products/:id": route({
    action: products.update,
    auth: "user",
    body: "json",
    params: (input) => bodyParams(input, { id: pathId(input, "PRODUCT_NOT_FOUND"), versions: ifMatch(input) }),
    reply: showProduct,
  }),
  "DELETE /products/:id": route({
    action: products.archive,
    auth: "user",
    params: (input) => ({ id: pathId(input, "PRODUCT_NOT_FOUND") }),
    reply: noContent,
  }),
  "POST /products/:id/stock": route({
    action: products.adjust,
    auth: "user",
    body: "json",
    params: (input) => bodyParams(input, { id: pathId(input, "PRODUCT_NOT_FOUND") }),
    reply: showProduct,
  }),
  "GET /products/:id/stock": route({
    action: products.ledger,
    auth: "user",
    params: (input) => queryParams(input, products.ledger, "ignore", { id: pathId(input, "PRODUCT_NOT_FOUND") }),
    reply: (page, input) => ok(page, nextLink(`/products/${pathId(input, "PRODUCT_NOT_FOUND")}/stock`, input, page.next_cursor)),
  }),

  "POST /orders": route({
    action: orders.create,
    auth: "user",
    body: "json",
    params: (input) => bodyParams(input, { idempotency_key: idempotencyKey(input) }),
    perform: (gather, order, ctx) => gather.createOrder(order, callerOf(ctx)),
    reply: ({ order, replayed }) =>
      created(`/orders/${order.id}`, entity(order).body, {
        ...entity(order).headers,
        ...(replayed && { "Idempotent-Replayed": "true" }),
      }),
  }),
  "GET /orders": route({
    action: orders.list,
    auth: "user",
    params: (input) => queryParams(input, orders.list, "ignore"),
    reply: (page, input) => list("/orders", page, input),
  }),
  "GET /orders/:id": route({
    action: orders.get,
    auth: "user",
    params: (input) => ({ id: pathId(input, "ORDER_NOT_FOUND") }),
    perform: (gather, { id }, ctx) => gather.order(id, callerOf(ctx)),
    reply: show,
  }),
  "POST /orders/:id/cancel": route({
    action: orders.cancel,
    auth: "user",
    params: (input) => ({ id: pathId(input, "ORDER_NOT_FOUND") }),
    reply: showOrder,
  }),

  "GET /admin/outbox": route({
    action: orders.outbox,
    auth: "admin",
    params: (input) => queryParams(input, orders.outbox, "ignore"),
    reply: (page, input) => ok(page, nextLink("/admin/outbox", input, page.next_cursor)),
  }),
  "POST /admin/outbox/:id/replay": route({
    action: orders.replay,
    auth: "admin",
    params: (input) => ({ id: pathId(input, "NOT_FOUND") }),
    reply: () => ({ status: 202 }),
  }),
  "GET /admin/consistency": route({ action: orders.audit, auth: "admin", reply: (report) => ok(report) }),
};
