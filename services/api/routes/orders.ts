import type { Context } from "moleculer";
import { callerOf, type Meta } from "../../../broker/contract";
import { orderEvents } from "../../../contracts/api";
import * as orders from "../../../contracts/orders";
import type { BatchedCalls } from "../batched-calls";
import { EXAMPLE_ID } from "../openapi/schemas";
import { bodyParams, IDEMPOTENCY_KEY, idOr, IF_MATCH, LAST_EVENT_ID, pathId, queryParams, refuseQuery, type Input } from "../routing/input";
import { created, entity, list, noContent, show, showOrder } from "../routing/responses";
import { route, type HttpResponse, type Routes } from "../routing/route";
import { STREAM_EXAMPLE } from "../streams/order-stream";
import { EVENT_STREAM } from "../streams/stream";

/** Responds with 204 if the order is final and the client has all its events: it then stops reconnecting (WHATWG HTML, 9.2.3). */
async function follow(ctx: Context<unknown, Meta>, input: Input, batched: BatchedCalls): Promise<HttpResponse> {
  const seen = Number(LAST_EVENT_ID.read(input));
  const caller = callerOf(ctx);
  const order = await batched.order(pathId(input, "ORDER_NOT_FOUND"), caller, input.requester);
  if (orders.isFinal(order.status) && seen >= order.history.length) return noContent();
  return { status: 200, headers: EVENT_STREAM, follow: { order, caller, seen } };
}

export const ORDER_ROUTES: Routes = {
  "POST /orders": route({
    action: orders.create,
    takesIdempotencyKey: true,
    summary: "Places an order. It is PENDING at first, and confirmed or rejected a moment later",
    statuses: [201],
    errors: ["PRODUCT_NOT_FOUND", "INSUFFICIENT_STOCK"],
    auth: "user",
    supplied: { idempotency_key: IDEMPOTENCY_KEY },
    body: { example: { items: [{ product_id: EXAMPLE_ID, quantity: 3 }] } },
    params: bodyParams,
    perform: async (batched, order, requester, ctx) => {
      const placed = await batched.createOrder(order, callerOf(ctx), requester);
      ctx.meta.replayed = placed.replayed;
      return placed;
    },
    shows: orders.Order,
    respond: ({ order }) => created(`/orders/${order.id}`, entity(order).body, entity(order).headers),
  }),
  "GET /orders": route({
    action: orders.list,
    lane: "lists",
    summary: "The caller's orders, newest first; an admin may list those of others",
    statuses: [200],
    errors: ["FORBIDDEN"],
    auth: "user",
    params: (input) => queryParams(input, orders.list),
    respond: (page, input) => list("/orders", page, input),
  }),
  "GET /orders/:id": route({
    action: orders.get,
    summary: "An order, for its buyer and for admins",
    statuses: [200, 304],
    errors: [],
    auth: "user",
    supplied: { id: idOr("ORDER_NOT_FOUND") },
    perform: (batched, { id }, requester, ctx) => batched.order(id, callerOf(ctx), requester),
    respond: show,
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
    takesIdempotencyKey: true,
    summary: "Cancels a PENDING or CONFIRMED order and releases its stock",
    statuses: [200],
    errors: ["ORDER_NOT_CANCELLABLE"],
    auth: "user",
    supplied: { id: idOr("ORDER_NOT_FOUND"), versions: IF_MATCH },
    body: "empty",
    params: bodyParams,
    respond: showOrder,
  }),
};
