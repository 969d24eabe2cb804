import { createHash, randomUUID } from "node:crypto";
import path from "node:path";
import type { Context, Service, ServiceBroker } from "moleculer";
import { DataTypes } from "sequelize";
import { call, callerOf, implement, subscribe, type Meta, type SchemaFor } from "../../broker/contract";
import { isUnreachable, problem } from "../../broker/errors";
import { loadConfig, type Config } from "../../config";
import type { Result } from "../../contracts/contract";
import * as contract from "../../contracts/orders";
import type { Line } from "../../contracts/orders";
import { MAX_BATCH, productsAudit, quote, reservations, stockRefused, stockSettled } from "../../contracts/products";
import { databaseMixin, type WithDatabase } from "../../mixins/database.mixin";
import { outboxMixin, type WithOutbox } from "../../mixins/outbox.mixin";
import { isLockTimeout } from "../../mixins/sql-state";
import { auditShop } from "./audit";
import { cancel, describeShortages, mergeLines, place, type Refusal } from "./order";
import * as store from "./orders.store";

type Created = Result<typeof contract.create>;
type Orders = Service &
  WithDatabase &
  WithOutbox & {
    place(ctx: Context<unknown, Meta>, lines: Line[], key: OrderKey): Promise<store.Draft>;
    insert(draft: store.Draft): Promise<store.OrderRow | undefined>;
    replay(key: OrderKey): Promise<Created | undefined>;
  };

/** What makes an order this order: asked again with the same three, it is the same one. */
interface OrderKey {
  user_id: number;
  idempotency_key: string;
  request_hash: string;
}

const MODEL = { name: "orders", define: { id: { type: DataTypes.BIGINT, primaryKey: true, autoIncrement: true } } };

/** Most events that wait for an answer at one time: more would only fill the memory of a slow products node. */
const MAX_OUTSTANDING = 1_024;

/** Orders and their business rules. */
export default function orders(_broker: ServiceBroker, config: Config = loadConfig()): SchemaFor<Orders> {
  const limits = { ...config.outbox, outstanding: MAX_OUTSTANDING, batch: MAX_BATCH };
  return {
    name: "orders",
    // The last one starts first and stops last: the relay needs the database.
    mixins: [
      outboxMixin([contract.orderCreated.name, contract.orderCancelled.name], limits),
      databaseMixin({ service: "orders", url: config.databases.orders, migrations: path.join(__dirname, "migrations"), model: MODEL }),
    ],

    actions: {
      create: implement(contract.create, async function (this: Orders, ctx) {
        const lines = mergeLines(ctx.params.items);
        const key: OrderKey = {
          user_id: callerOf(ctx).id,
          idempotency_key: ctx.params.idempotency_key ?? randomUUID(),
          request_hash: createHash("sha256").update(JSON.stringify(lines)).digest("base64url"),
        };
        const before = await this.replay(key);
        if (before !== undefined) return before;

        let draft: store.Draft;
        try {
          draft = await this.place(ctx, lines, key);
        } catch (refusal) {
          // Its twin may have been committed meanwhile: a repeat never turns into 404, 409 or 503.
          const twin = await this.replay(key);
          if (twin !== undefined) return twin;
          throw refusal;
        }
        const order = await this.insert(draft);
        if (order !== undefined) {
          this.relay();
          return { order: store.present(order), replayed: false };
        }
        const twin = await this.replay(key);
        if (twin === undefined) throw new Error("a key was taken and then was not there");
        return twin;
      }),

      get: implement(contract.get, async function (this: Orders, ctx) {
        const caller = callerOf(ctx);
        const order = await store.findOrder(this.db.query, ctx.params.id);
        if (order === undefined || (order.user_id !== caller.id && caller.role !== "admin")) throw notFound();
        return store.present(order);
      }),

      list: implement(contract.list, async function (this: Orders, ctx) {
        const caller = callerOf(ctx);
        const { user_id = caller.id, all = false, status, limit = 20, cursor } = ctx.params;
        if ((all || user_id !== caller.id) && caller.role !== "admin")
          throw problem("FORBIDDEN", "only an admin sees the orders of others");
        return store.listOrders(this.db, { userId: all ? undefined : user_id, status, limit, cursor });
      }),

      cancel: implement(contract.cancel, async function (this: Orders, ctx) {
        const caller = callerOf(ctx);
        const { id } = ctx.params;
        const cancelled = await this.db.transaction(async (query) => {
          const order = await store.lockOrder(query, id);
          if (order === undefined || (order.user_id !== caller.id && caller.role !== "admin")) throw notFound();
          const after = cancel(order.status);
          if (after === undefined) throw problem("ORDER_NOT_CANCELLABLE", `the order is ${order.status}`);
          if (after !== order.status) await store.writeCancelled(query, id);
          return store.findOrder(query, id);
        });
        if (cancelled === undefined) throw notFound();
        this.relay();
        return store.present(cancelled);
      }),

      outbox: implement(contract.outbox, async function (this: Orders, ctx) {
        const { state = "pending,parked", limit = 20, cursor } = ctx.params;
        return store.listOutbox(this.db, state.toUpperCase().split(","), limit, cursor);
      }),

      replay: implement(contract.replay, async function (this: Orders, ctx) {
        const replayed = await store.replayAnnouncement(this.db, ctx.params.id);
        if (replayed === undefined) throw problem("NOT_FOUND", "there is no such announcement");
        if (!replayed) throw problem("NOT_PARKED", "this announcement is not parked");
        this.relay();
        return {};
      }),

      audit: implement(contract.audit, async function (this: Orders, ctx) {
        return auditShop(this.db, {
          audit: () => call(ctx, productsAudit, {}),
          reservations: (after, upto) => call(ctx, reservations, { after, upto }),
        });
      }),
    },

    events: {
      /** The answer of products: what became of each order's stock. */
      "stock.settled": subscribe(stockSettled, async function (this: Orders, ctx) {
        await store.settleOrders(this.db, ctx.params.orders);
        this.relayHeldBack();
      }),

      /** Products can't process these: counted, and parked when it is hopeless. */
      "stock.refused": subscribe(stockRefused, async function (this: Orders, ctx) {
        const parked = await store.refuseOrders(this.db, ctx.params.orders);
        for (const { order_id, last_error } of parked) this.logger.error(`the announcement of order ${order_id} is parked: ${last_error}`);
        this.relayHeldBack();
      }),
    },

    methods: {
      /** Asks for names, prices and stock, and makes a draft of them. */
      async place(this: Orders, ctx: Context<unknown, Meta>, lines: Line[], key: OrderKey): Promise<store.Draft> {
        const quotes = await call(ctx, quote, { ids: lines.map((line) => line.product_id) }).catch((error: unknown) => {
          throw isUnreachable(error) ? problem("SERVICE_UNAVAILABLE", "the catalogue can't answer now") : error;
        });
        const placement = place(lines, quotes);
        if (!placement.ok) throw refused(placement.refusal);
        return { ...key, lines: placement.lines, total_cents: placement.total_cents };
      },

      /** @returns undefined where the key is taken: its order can be read now */
      async insert(this: Orders, draft: store.Draft): Promise<store.OrderRow | undefined> {
        try {
          return (await store.insertOrders(this.db, [draft]))[0];
        } catch (error) {
          if (isLockTimeout(error)) throw problem("IDEMPOTENCY_IN_FLIGHT", "the first request with this key is still under way");
          throw error;
        }
      },

      /** The first answer to a key, where there was one. */
      async replay(this: Orders, key: OrderKey): Promise<Created | undefined> {
        const order = await store.findByKey(this.db, key.user_id, key.idempotency_key);
        if (order === undefined) return undefined;
        if (order.request_hash !== key.request_hash) throw problem("IDEMPOTENCY_KEY_REUSED", "this key came with another body before");
        return { order: store.presentAsCreated(order), replayed: true };
      },
    },
  };
}

const notFound = () => problem("ORDER_NOT_FOUND", "there is no such order");

function refused(refusal: Refusal) {
  switch (refusal.kind) {
    case "unknown":
      return problem("PRODUCT_NOT_FOUND", `there is no product ${refusal.product_ids.join(", ")}`);
    case "short":
      return problem("INSUFFICIENT_STOCK", describeShortages(refusal.shortages));
  }
}
