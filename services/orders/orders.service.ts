import path from "node:path";
import type { Context, Service, ServiceBroker } from "moleculer";
import { DataTypes } from "sequelize";
import {
  adminOf,
  handleEach,
  call,
  callerOf,
  implement,
  subscribe,
  viewerOf,
  type Meta,
  type SchemaFor,
  type Viewer,
} from "../../broker/contract";
import { problem, preconditionFailed } from "../../broker/errors";
import { loadConfig, type Config } from "../../config";
import { record } from "../../contracts/accounts";
import { MAX_BATCH, RESPONSE_BYTES } from "../../contracts/contract";
import { orderActivity } from "../../contracts/operations";
import * as contract from "../../contracts/orders";
import { productsAudit, release, reservations, stockRefused, stockSettled, type Outcome } from "../../contracts/products";
import { batch } from "../../mixins/batching";
import { countWithin } from "../../mixins/bytes";
import { databaseMixin, type WithDatabase } from "../../mixins/database.mixin";
import { deleteExpiredResponses, once } from "../../mixins/idempotency";
import { outboxMixin, type WithOutbox } from "../../mixins/outbox.mixin";
import { backlog } from "../../mixins/outbox";
import { isLockTimeout, shouldRetryIndividually } from "../../mixins/sql-state";
import { cleanupMixin } from "../../mixins/cleanup.mixin";
import { readActivity } from "./activity.store";
import { auditShop, type ProductsSide } from "./audit";
import { Changes } from "./changes";
import { after } from "./order";
import { listOutbox, refuseOrders, replayRow } from "./outbox.store";
import { KEY_WAIT_MS, Placing } from "./placing";
import { findOrders, findSeen, listOrders } from "./read.store";
import { repairShop, type Repairer } from "./repair";
import { republish } from "./repair.store";
import { present, type OrderRow } from "./row";
import { lockOrder, settleOrders, writeCancelled } from "./transitions.store";

type Orders = Service &
  WithDatabase &
  WithOutbox & {
    placing: Placing;
    changes: Changes;
    /** Applies the outcome of one order, together with others that arrive at the same moment. */
    settle(outcome: Outcome): Promise<void>;
  };

const MODEL = { name: "orders", define: { id: { type: DataTypes.UUID, primaryKey: true } } };

/** Up to how many new, and republished, outbox rows an operations view counts: it asks once per second. */
const COUNTED_ROWS = 10_000;
/** In-flight cap of each outbox queue, in weight: more would only fill the memory of a slow products node. */
const MAX_IN_FLIGHT = 1_024;

/** Orders and their business rules. */
export default function orders(_broker: ServiceBroker, config: Config = loadConfig()): SchemaFor<Orders> {
  const limits = { ...config.outbox, maxInFlight: MAX_IN_FLIGHT, batch: MAX_BATCH };
  return {
    name: "orders",
    // The last mixin starts first and stops last: the others need the database.
    mixins: [
      outboxMixin([contract.orderCreated, contract.orderCancelled], limits),
      cleanupMixin(deleteExpiredResponses),
      databaseMixin({
        service: "orders",
        url: config.databases.orders,
        migrations: path.join(__dirname, "migrations"),
        model: MODEL,
        lockTimeoutMs: KEY_WAIT_MS,
      }),
    ],

    actions: {
      create: implement(contract.create, async function (this: Orders, ctx) {
        return this.placing.place({ user_id: callerOf(ctx).id, ...ctx.params });
      }),

      createMany: implement(contract.createMany, async function (this: Orders, ctx) {
        // the request id is not part of the content
        return handleEach(this, contract.create.name, ctx.params.orders, ({ request_id: _, ...request }) => this.placing.place(request));
      }),

      get: implement(contract.get, async function (this: Orders, ctx) {
        const [order] = await findOrders(this.db.query, [ctx.params.id]);
        if (!isSeenBy(order, viewerOf(ctx))) throw notFound();
        return present(order);
      }),

      getMany: implement(contract.getMany, async function (this: Orders, ctx) {
        const orders = (await findSeen(this.db, ctx.params.orders)).map((order) => order && present(order));
        return orders.slice(0, countWithin(orders, RESPONSE_BYTES));
      }),

      list: implement(contract.list, async function (this: Orders, ctx) {
        const { all = false, status, limit = 20, cursor } = ctx.params;
        const ofOthers = all || (ctx.params.user_id !== undefined && ctx.params.user_id !== viewerOf(ctx).id);
        if (all && ctx.params.user_id !== undefined) throw problem("BAD_REQUEST", "user_id and all=true contradict each other");
        if (ofOthers) adminOf(ctx, "only an admin may see the orders of other users");
        const userId = all ? undefined : (ctx.params.user_id ?? callerOf(ctx).id);
        return this.lists.read((db) => listOrders(db, { userId, status, limit, cursor }));
      }),

      cancel: implement(contract.cancel, async function (this: Orders, ctx) {
        const caller = viewerOf(ctx);
        const { id, versions } = ctx.params;
        let hasChanged = false;
        const cancelled = await once(this.db, contract.cancel, ctx, {
          prepare: async () => {
            if (caller.role !== "admin") return;
            const [order] = await findOrders(this.db.query, [id]);
            if (order !== undefined && order.user_id !== caller.id) await call(ctx, record, { action: "order.cancelled", subject: id });
          },
          change: async (query) => {
            const order = await lockOrder(query, id);
            if (!isSeenBy(order, caller)) throw notFound();
            const status = after(order.status, "cancel");
            if (status === undefined) throw problem("ORDER_NOT_CANCELLABLE", `the order is ${order.status}`);
            if (status !== order.status) {
              // Checked only here: for an order that is already cancelled, the request has succeeded, and its first response may have been lost
              // (RFC 9110, 13.1.1).
              if (versions !== undefined && !versions.includes(order.version)) throw preconditionFailed("order", versions);
              await writeCancelled(query, id);
              hasChanged = true;
            }
            const [row] = await findOrders(query, [id]);
            if (row === undefined) throw notFound();
            return present(row);
          },
          hasChanged: () => hasChanged,
        });
        this.relay();
        this.changes.note([id]);
        return cancelled;
      }),

      outbox: implement(contract.outbox, async function (this: Orders, ctx) {
        adminOf(ctx);
        const { state = "pending,parked", limit = 20, cursor } = ctx.params;
        return this.lists.read((db) => listOutbox(db, state.toUpperCase().split(","), limit, cursor));
      }),

      replay: implement(contract.replay, async function (this: Orders, ctx) {
        adminOf(ctx);
        const { id } = ctx.params;
        const replayed = await once(this.db, contract.replay, ctx, {
          prepare: () => call(ctx, record, { action: "outbox.replayed", subject: String(id) }),
          change: async (query) => {
            const wasParked = await replayRow(query, id);
            if (wasParked === undefined) throw problem("NOT_FOUND", "there is no such outbox row");
            if (!wasParked) throw problem("NOT_PARKED", "this outbox row is not parked");
            return {};
          },
        });
        this.relay();
        return replayed;
      }),

      activity: implement(orderActivity, async function (this: Orders) {
        const [{ pending, parked, oldest }, activity] = await Promise.all([backlog(this.db, COUNTED_ROWS), readActivity(this.db)]);
        return { ...activity, outbox: { pending, parked, oldest_seconds: oldest } };
      }),

      audit: implement(contract.audit, async function (this: Orders, ctx) {
        adminOf(ctx);
        return auditShop(this.db, productsSide(ctx));
      }),

      repair: implement(contract.repair, async function (this: Orders, ctx) {
        adminOf(ctx);
        const { apply = false } = ctx.params;
        const repairer: Repairer = {
          note: async (id, line) => {
            this.logger.warn(line);
            await call(ctx, record, { action: "order.repaired", subject: id });
          },
          republish: (id, event) => republish(this.db, id, event),
          release: async (order_id) => {
            await call(ctx, release, { order_id });
          },
        };
        const result = await repairShop(this.db, productsSide(ctx), repairer, apply);
        this.relay();
        return result;
      }),
    },

    events: {
      /** The reply of products: the outcome of each order's reservation or release. */
      [stockSettled.name]: subscribe(stockSettled, async function (this: Orders, ctx) {
        await Promise.all(ctx.params.orders.map((outcome) => this.settle(outcome)));
        this.relayHeldBack();
      }),

      /** Products can't process these events: counts the refusals, and parks the row after ten or if the refusal is permanent. */
      [stockRefused.name]: subscribe(stockRefused, async function (this: Orders, ctx) {
        const parked = await refuseOrders(this.db, ctx.params.orders);
        for (const { subject, last_error } of parked) this.logger.error(`an outbox row of order ${subject} is parked: ${last_error}`);
        this.relayHeldBack();
      }),
    },

    created(this: Orders) {
      this.placing = new Placing(this);
      this.changes = new Changes(this.broker);
      this.settle = batch(
        async (outcomes) => {
          const { changed, mismatches } = await settleOrders(this.db, outcomes);
          this.changes.note(changed);
          for (const { order_id, message, isParked } of mismatches) {
            if (isParked) this.logger.error(`an outbox row of order ${order_id} is parked, since a reply does not match it: ${message}`);
            else this.logger.warn(`a reply that does not match order ${order_id} is ignored: ${message}`);
          }
          return outcomes.map(() => undefined);
        },
        { places: 4 * MAX_IN_FLIGHT, shouldRetryIndividually: shouldRetryOrdersIndividually, inParallel: true },
      );
    },

    stopped(this: Orders) {
      this.changes.stop();
    },
  };
}

/** An order that another node has locked makes the whole batch wait. Retried individually and in parallel, the others don't wait again. */
const shouldRetryOrdersIndividually = (error: unknown): boolean => isLockTimeout(error) || shouldRetryIndividually(error);

/** The audit's calls to products, on behalf of its caller. */
const productsSide = (ctx: Context<unknown, Meta>): ProductsSide => ({
  audit: () => call(ctx, productsAudit, {}),
  reservations: (after, upto) => call(ctx, reservations, { after, upto }),
});

/** Whether the order exists and this viewer may see it. */
const isSeenBy = <O extends Pick<OrderRow, "user_id">>(order: O | undefined, { id, role }: Viewer): order is O =>
  order !== undefined && (order.user_id === id || role === "admin");

const notFound = () => problem("ORDER_NOT_FOUND", "there is no such order");
