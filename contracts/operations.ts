import { Type, type Static, type TNumber } from "@sinclair/typebox";
import { Node } from "./api";
import { action, closed, described, Id, named, nullable, Timestamp } from "./contract";
import type { Status } from "./orders";

/*
 * What an operations view shows. The parts of a snapshot come from the gateways and from the services that own the data.
 */

const count = (description: string) => Type.Integer({ minimum: 0, description });
const rate = (description: string): TNumber => Type.Number({ minimum: 0, description });

/** The requests that one gateway has served since its start, with the numbers of those in each class of durations. */
export const GatewayActivity = closed({
  requests: count("All of them."),
  refused: count("Those with status 429."),
  failed: count("Those with a status of 500 or above."),
  in_progress: count("In progress or queued."),
  durations: Type.Array(Type.Integer({ minimum: 0 }), { maxItems: 64 }),
});
export type GatewayActivity = Static<typeof GatewayActivity>;

/** Asked of each gateway, for the rates of all. */
export const gatewayActivity = action("api.activity", { params: closed({}), result: GatewayActivity, idempotent: true });

const RequestRates = named("Request rates", "HTTP requests of all gateways, over ten seconds at most.", {
  per_second: rate("Requests per second."),
  refused_per_second: rate("Responses with status 429 per second."),
  failed_per_second: rate("Responses with a status of 500 or above per second."),
  in_progress: count("Requests that are in progress or queued now."),
  p50_ms: described(nullable(Type.Number({ minimum: 0 })), "The median duration in milliseconds, rounded up; null without requests."),
  p99_ms: described(nullable(Type.Number({ minimum: 0 })), "99 % of the requests took no longer, in milliseconds, rounded up."),
});
export type RequestRates = Static<typeof RequestRates>;

/** A number for every status. */
const perStatus = <T extends TNumber>(title: string, description: string, each: T) =>
  named(title, description, { PENDING: each, CONFIRMED: each, REJECTED: each, CANCELLED: each } satisfies Record<Static<typeof Status>, T>);

/** The newest orders, among which an operations view counts those of each status. */
export const COUNTED_ORDERS = 1_000;

const OrderActivity = named("Order activity", "What happens to orders.", {
  per_second: perStatus("Status rates", "Orders that got each status per second, over the last ten seconds.", Type.Number({ minimum: 0 })),
  newest: perStatus(
    "Status counts",
    `How many of the newest ${COUNTED_ORDERS} orders have each status.`,
    Type.Number({ minimum: 0, maximum: COUNTED_ORDERS }),
  ),
  outbox: named("Outbox state", "Events that wait for the reply of products.", {
    pending: count("Rows without a reply, counted up to 20,000."),
    parked: count("Rows that need a decision by an operator."),
    oldest_seconds: rate("Age of the oldest pending row; 0 without one."),
  }),
});
export type OrderActivity = Static<typeof OrderActivity>;

/** For an operations view. */
export const orderActivity = action("orders.activity", { params: closed({}), result: OrderActivity, idempotent: true });

/** Products in an operations view. */
export const BUSIEST = 10;

const BusyProduct = named("Busy product", "A product that orders have reserved in the last minute.", {
  product_id: Id,
  name: Type.String({ maxLength: 200 }),
  quantity: count("Units available for sale."),
  sold: count("Units reserved in the last minute, or since 5,000 stock movements ago."),
});
const BusyProducts = Type.Array(BusyProduct, { maxItems: BUSIEST });
export type BusyProduct = Static<typeof BusyProduct>;

/** For an operations view: the products of which most units were reserved in the last minute. */
export const stockActivity = action("products.activity", {
  params: closed({}),
  result: closed({ busiest: BusyProducts }),
  idempotent: true,
});

/** What does not respond is null. */
export const Snapshot = named("Operations snapshot", "The state of the whole shop at one moment. Parts that do not respond are null.", {
  at: Timestamp,
  nodes: Type.Array(Node, { description: "The nodes that the gateway can reach." }),
  requests: described(nullable(RequestRates), "Null until the second snapshot."),
  orders: nullable(OrderActivity),
  busiest: described(nullable(BusyProducts), "The products of which most units were reserved in the last minute."),
});
export type Snapshot = Static<typeof Snapshot>;

/** Server-sent events of the type `snapshot`, once per second. */
export const operations = action("api.operations", { params: closed({}), result: Snapshot });
