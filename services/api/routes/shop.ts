import type { Context } from "moleculer";
import { callerOf, type Meta } from "../../../broker/contract";
import * as accounts from "../../../contracts/accounts";
import { orderEvents } from "../../../contracts/api";
import * as orders from "../../../contracts/orders";
import * as products from "../../../contracts/products";
import * as users from "../../../contracts/users";
import type { BatchedCalls } from "../batched-calls";
import {
  ADDRESS,
  bodyParams,
  IDEMPOTENCY_KEY,
  idOr,
  IF_MATCH,
  IF_UNCHANGED,
  IF_UNEDITED,
  LAST_EVENT_ID,
  pathId,
  queryParams,
  refuseQuery,
  ROW_ID,
  type Input,
} from "../routing/input";
import { accepted, created, entity, list, nextLink, noContent, ok, show, showOrder, showProduct } from "../routing/replies";
import { route, type Reply, type Routes } from "../routing/route";
import { EXAMPLE_ID } from "../openapi/schemas";
import { EVENT_STREAM, STREAM_EXAMPLE } from "../streams";
import { TOKEN_ROUTES } from "./token";

/** The most frequent read. A valid id is all the validation that it needs. */
export const readProduct = async (id: string, input: Pick<Input, "headers" | "requester">, batched: BatchedCalls): Promise<Reply> =>
  show(await batched.product(id, input.requester), input);

/** Responds with 204 if the order is final and the client has all its events: it then stops reconnecting (WHATWG HTML, 9.2.3). */
async function follow(ctx: Context<unknown, Meta>, input: Input, batched: BatchedCalls): Promise<Reply> {
  const seen = Number(LAST_EVENT_ID.read(input));
  const caller = callerOf(ctx);
  const order = await batched.order(pathId(input, "ORDER_NOT_FOUND"), caller, input.requester);
  if (orders.isFinal(order.status) && seen >= order.history.length) return noContent();
  return { status: 200, headers: EVENT_STREAM, follow: { order, caller, seen } };
}

/** The shop's routes. Only what is listed here, in token.ts, health.ts, nodes.ts, problems.ts or docs-page.ts is reachable from outside. */
export const ROUTES: Routes = {
  "POST /register": route({
    action: users.register,
    lane: "passwords",
    summary: "Opens an account",
    statuses: [201],
    errors: ["EMAIL_TAKEN"],
    auth: "public",
    supplied: { address: ADDRESS },
    body: { example: { email: "ada@example.com", password: "correct horse" } },
    params: bodyParams,
    reply: (user) => created("/me", user, { "Cache-Control": "no-store" }),
  }),
  ...TOKEN_ROUTES,
  "POST /logout": route({
    action: users.logout,
    summary: "Ends the session of a refresh token; does nothing if the token is unknown",
    statuses: [204],
    errors: [],
    auth: "public",
    supplied: { address: ADDRESS },
    body: { example: { refresh_token: "5LnHxV3eYw0m6Zr9tQ2uBfKcJd8sPa1gNi7oTvXyEhM" } },
    params: bodyParams,
    reply: noContent,
  }),
  "GET /me": route({
    action: users.me,
    summary: "Who the caller is",
    statuses: [200],
    errors: [],
    auth: "user",
    reply: (user) => ok(user),
  }),
  "PUT /me/password": route({
    action: users.changePassword,
    lane: "passwords",
    summary: "Sets a new password; ends all other sessions of the caller",
    statuses: [204],
    errors: ["INVALID_CREDENTIALS"],
    auth: "user",
    supplied: { address: ADDRESS },
    body: { example: { current_password: "correct horse", new_password: "battery staple" } },
    params: bodyParams,
    reply: noContent,
  }),
  "GET /.well-known/jwks.json": route({
    action: users.jwks,
    summary: "The public keys that verify access tokens (RFC 7517)",
    statuses: [200],
    errors: [],
    auth: "public",
    reply: (keys) => ok(keys, { "Cache-Control": "public, max-age=300" }),
  }),

  "POST /products": route({
    action: products.create,
    summary: "Puts a product on sale; the caller becomes its seller",
    statuses: [201],
    errors: [],
    auth: "user",
    body: { example: { name: "Desk lamp", price: 49.9, quantity: 50, category: "lamps" } },
    params: bodyParams,
    reply: (product) => created(`/products/${product.id}`, entity(product).body, entity(product).headers),
  }),
  "GET /products": route({
    action: products.list,
    summary: "The catalogue, page by page",
    statuses: [200],
    errors: [],
    auth: "public",
    params: (input) => queryParams(input, products.list),
    perform: (batched, params, requester) => batched.products(params, requester),
    reply: (page, input) => list("/products", page, input),
  }),
  "GET /products/:id": {
    contract: products.get,
    summary: "A product",
    statuses: [200, 304],
    errors: [],
    auth: "public",
    body: "none",
    supplied: { id: idOr("PRODUCT_NOT_FOUND") },
    lane: "none",
    read: (input) => {
      refuseQuery(input);
      const id = pathId(input, "PRODUCT_NOT_FOUND");
      return (_ctx, batched) => readProduct(id, input, batched);
    },
  },
  "PATCH /products/:id": route({
    action: products.update,
    summary: "Changes a product, for its seller and for admins",
    statuses: [200],
    errors: ["FORBIDDEN"],
    auth: "user",
    supplied: { id: idOr("PRODUCT_NOT_FOUND"), tags: IF_UNEDITED },
    body: { example: { price: 44.9, description: "With a dimmer" } },
    params: bodyParams,
    reply: showProduct,
  }),
  "DELETE /products/:id": route({
    action: products.archive,
    summary: "Takes a product off sale, for its seller and for admins; old orders keep it",
    statuses: [204],
    errors: ["FORBIDDEN"],
    auth: "user",
    supplied: { id: idOr("PRODUCT_NOT_FOUND"), tags: IF_UNEDITED },
    reply: noContent,
  }),
  "POST /products/:id/stock": route({
    action: products.adjust,
    summary: "Adds units to the stock or removes them, for the seller and for admins",
    statuses: [200],
    errors: ["FORBIDDEN", "INSUFFICIENT_STOCK"],
    auth: "user",
    supplied: { id: idOr("PRODUCT_NOT_FOUND"), tags: IF_UNCHANGED },
    body: { example: { delta: 10, reason: "delivery" } },
    params: bodyParams,
    reply: showProduct,
  }),
  "GET /products/:id/stock": route({
    action: products.ledger,
    lane: "lists",
    summary: "The stock's ledger, newest movement first, for the seller and for admins",
    statuses: [200],
    errors: ["FORBIDDEN"],
    auth: "user",
    supplied: { id: idOr("PRODUCT_NOT_FOUND") },
    params: (input, supplied) => queryParams(input, products.ledger, supplied),
    reply: (page, input) => ok(page, nextLink(`/products/${pathId(input, "PRODUCT_NOT_FOUND")}/stock`, input, page.next_cursor)),
  }),

  "POST /orders": route({
    action: orders.create,
    summary: "Places an order. It is PENDING at first, and confirmed or rejected a moment later",
    statuses: [201],
    errors: ["PRODUCT_NOT_FOUND", "INSUFFICIENT_STOCK", "IDEMPOTENCY_IN_FLIGHT", "IDEMPOTENCY_KEY_REUSED"],
    auth: "user",
    supplied: { idempotency_key: IDEMPOTENCY_KEY },
    body: { example: { items: [{ product_id: EXAMPLE_ID, quantity: 3 }] } },
    params: bodyParams,
    perform: (batched, order, requester, ctx) => batched.createOrder(order, callerOf(ctx), requester),
    shows: orders.Order,
    reply: ({ order, replayed }) =>
      created(`/orders/${order.id}`, entity(order).body, {
        ...entity(order).headers,
        ...(replayed && { "Idempotent-Replayed": "true" }),
      }),
  }),
  "GET /orders": route({
    action: orders.list,
    lane: "lists",
    summary: "The caller's orders, newest first; an admin may list those of others",
    statuses: [200],
    errors: ["FORBIDDEN"],
    auth: "user",
    params: (input) => queryParams(input, orders.list),
    reply: (page, input) => list("/orders", page, input),
  }),
  "GET /orders/:id": route({
    action: orders.get,
    summary: "An order, for its buyer and for admins",
    statuses: [200, 304],
    errors: [],
    auth: "user",
    supplied: { id: idOr("ORDER_NOT_FOUND") },
    perform: (batched, { id }, requester, ctx) => batched.order(id, callerOf(ctx), requester),
    reply: show,
  }),
  "GET /orders/:id/events": {
    contract: orderEvents,
    summary: "The order's history, and each change as it happens (server-sent events)",
    description: STREAM_EXAMPLE,
    statuses: [200, 204],
    errors: [],
    auth: "user",
    body: "none",
    supplied: { id: idOr("ORDER_NOT_FOUND"), last_event_id: LAST_EVENT_ID },
    lane: "none",
    media: ["text/event-stream"],
    read: (input) => {
      refuseQuery(input);
      return (ctx, batched) => follow(ctx, input, batched);
    },
  },
  "POST /orders/:id/cancel": route({
    action: orders.cancel,
    summary: "Cancels a PENDING or CONFIRMED order and releases its stock",
    statuses: [200],
    errors: ["ORDER_NOT_CANCELLABLE"],
    auth: "user",
    supplied: { id: idOr("ORDER_NOT_FOUND"), versions: IF_MATCH },
    body: "empty",
    params: bodyParams,
    reply: showOrder,
  }),

  "GET /admin/users": route({
    action: accounts.find,
    summary: "The account with an e-mail address",
    statuses: [200],
    errors: ["USER_NOT_FOUND"],
    auth: "admin",
    params: (input) => queryParams(input, accounts.find),
    reply: (account) => ok(account),
  }),
  "PATCH /admin/users/:id": route({
    action: accounts.update,
    summary: "Disables or enables an account, or gives it another role; takes effect everywhere within 2 s",
    statuses: [200],
    errors: ["LAST_ADMIN"],
    auth: "admin",
    supplied: { id: idOr("USER_NOT_FOUND") },
    body: { example: { disabled: false } },
    params: bodyParams,
    reply: (account) => ok(account),
  }),
  "GET /admin/audit-log": route({
    action: accounts.auditLog,
    lane: "lists",
    summary: "Who did what, newest first",
    statuses: [200],
    errors: [],
    auth: "admin",
    params: (input) => queryParams(input, accounts.auditLog),
    reply: (page, input) => ok(page, nextLink("/admin/audit-log", input, page.next_cursor)),
  }),
  "GET /admin/outbox": route({
    action: orders.outbox,
    lane: "lists",
    summary: "Outbox rows that are pending or parked, oldest first",
    statuses: [200],
    errors: [],
    auth: "admin",
    params: (input) => queryParams(input, orders.outbox),
    reply: (page, input) => ok(page, nextLink("/admin/outbox", input, page.next_cursor)),
  }),
  "POST /admin/outbox/:id/replay": route({
    action: orders.replay,
    summary: "Retries a parked outbox row",
    statuses: [202],
    errors: ["NOT_PARKED"],
    auth: "admin",
    supplied: { id: ROW_ID },
    body: "empty",
    params: bodyParams,
    reply: accepted,
  }),
  "GET /admin/consistency": route({
    action: orders.audit,
    lane: "audits",
    summary: "Audits each database, and whether orders and reservations agree",
    statuses: [200],
    errors: [],
    auth: "admin",
    reply: (report) => ok(report),
  }),
  "POST /admin/repair": route({
    action: orders.repair,
    lane: "audits",
    summary: "Repairs differences between orders and reservations after a backup was restored, or reports what it would do",
    statuses: [200],
    errors: [],
    auth: "admin",
    body: { example: { apply: false } },
    params: bodyParams,
    reply: (report) => ok(report),
  }),
};
