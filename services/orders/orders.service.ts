import { randomUUID } from "node:crypto";
import path from "node:path";
import type { Context, Service, ServiceBroker } from "moleculer";
import { DataTypes } from "sequelize";
import { adminOf, handleEach, broadcast, call, callerOf, implement, subscribe, type Meta, type SchemaFor } from "../../broker/contract";
import { isUnreachable, problem } from "../../broker/errors";
import { logFailure } from "../../broker/logger";
import { currentRequestId } from "../../broker/request";
import { loadConfig, type Config } from "../../config";
import { record } from "../../contracts/accounts";
import { MAX_BATCH, RESPONSE_BYTES } from "../../contracts/contract";
import * as contract from "../../contracts/orders";
import type { Created } from "../../contracts/orders";
import {
  productsAudit,
  quote,
  QUOTES_PER_CALL,
  release,
  reservations,
  stockRefused,
  stockSettled,
  type Outcome,
  type Quote,
} from "../../contracts/products";
import type { Caller } from "../../contracts/users";
import { batch } from "../../mixins/batching";
import { countWithin } from "../../mixins/bytes";
import { databaseMixin, explained, type WithDatabase } from "../../mixins/database.mixin";
import { outboxMixin, type WithOutbox } from "../../mixins/outbox.mixin";
import { isKeyLockTimeout, isLockTimeout, mayBeOfOne } from "../../mixins/sql-state";
import { auditShop, type ProductsSide } from "./audit";
import { cancel, describeShortages, hashRequest, mergeLines, place, type Content, type Refusal } from "./order";
import * as store from "./orders.store";
import { repairShop, type Repairer } from "./repair";
import { republish } from "./repair.store";

type Orders = Service &
  WithDatabase &
  WithOutbox & {
    takeOrder(request: OrderRequest): Promise<Created>;
    findReplay(key: OrderKey): Promise<Created | undefined>;
    notifyChanged(ids: readonly string[]): void;
    changed: Set<string>;
    notifying: NodeJS.Timeout | undefined;
    /** These batch the calls that arrive at the same moment. */
    quote(productIds: string[]): Promise<Quote[]>;
    commit(draft: store.Draft): Promise<store.OrderRow | undefined>;
    findByKey(key: OrderKey): Promise<store.Keyed | undefined>;
    settle(outcome: Outcome): Promise<void>;
  };

/** An order that a user asks for. */
interface OrderRequest extends Content {
  user_id: string;
  idempotency_key?: string;
}

/** Identifies an order request: a repeat with the same three values returns the same order. */
interface OrderKey {
  user_id: string;
  idempotency_key: string;
  request_hash: string;
}

const MODEL = { name: "orders", define: { id: { type: DataTypes.UUID, primaryKey: true } } };

/** In-flight cap of each outbox queue, in weight: more would only fill the memory of a slow products node. */
const MAX_IN_FLIGHT = 1_024;

/**
 * Milliseconds that a repeated request waits for the first one with its key to finish. With one retry that makes the promised 2 s, and
 * leaves the create time to respond.
 */
const LOCK_TIMEOUT_MS = 950;

/** Milliseconds for which changes are collected before gateways are notified: each event costs every gateway as much as a small request. */
const NOTIFY_AFTER_MS = 20;

/** Orders and their business rules. */
export default function orders(_broker: ServiceBroker, config: Config = loadConfig()): SchemaFor<Orders> {
  const limits = { ...config.outbox, maxInFlight: MAX_IN_FLIGHT, batch: MAX_BATCH };
  return {
    name: "orders",
    // The last mixin starts first and stops last: the relay needs the database.
    mixins: [
      outboxMixin([contract.orderCreated.name, contract.orderCancelled.name], limits),
      databaseMixin({
        service: "orders",
        url: config.databases.orders,
        migrations: path.join(__dirname, "migrations"),
        model: MODEL,
        lockTimeout: LOCK_TIMEOUT_MS,
      }),
    ],

    actions: {
      create: implement(contract.create, async function (this: Orders, ctx) {
        return this.takeOrder({ user_id: callerOf(ctx).id, ...ctx.params });
      }),

      createMany: implement(contract.createMany, async function (this: Orders, ctx) {
        // the request id is not part of the content
        return handleEach(this, contract.create.name, ctx.params.orders, ({ request_id: _, ...request }) => this.takeOrder(request));
      }),

      get: implement(contract.get, async function (this: Orders, ctx) {
        const [order] = await store.findOrders(this.db.query, [ctx.params.id]);
        if (!isSeenBy(order, viewerOf(ctx))) throw notFound();
        return store.present(order);
      }),

      getMany: implement(contract.getMany, async function (this: Orders, ctx) {
        const orders = (await store.findSeen(this.db, ctx.params.orders)).map((order) => order && store.present(order));
        return orders.slice(0, countWithin(orders, RESPONSE_BYTES));
      }),

      list: implement(contract.list, async function (this: Orders, ctx) {
        const { all = false, status, limit = 20, cursor } = ctx.params;
        const ofOthers = all || (ctx.params.user_id !== undefined && ctx.params.user_id !== viewerOf(ctx).id);
        if (all && ctx.params.user_id !== undefined) throw problem("BAD_REQUEST", "user_id and all=true contradict each other");
        if (ofOthers) adminOf(ctx, "only an admin may see the orders of other users");
        const userId = all ? undefined : (ctx.params.user_id ?? callerOf(ctx).id);
        return this.lists.read((db) => store.listOrders(db, { userId, status, limit, cursor }));
      }),

      cancel: implement(contract.cancel, async function (this: Orders, ctx) {
        const caller = viewerOf(ctx);
        const { id, versions } = ctx.params;
        if (caller.role === "admin") {
          const [order] = await store.findOrders(this.db.query, [id]);
          if (order !== undefined && order.user_id !== caller.id) await call(ctx, record, { action: "order.cancelled", subject: id });
        }
        const cancelled = await this.db.transaction(async (query) => {
          const order = await store.lockOrder(query, id);
          if (!isSeenBy(order, caller)) throw notFound();
          const after = cancel(order.status);
          if (after === undefined) throw problem("ORDER_NOT_CANCELLABLE", `the order is ${order.status}`);
          if (after !== order.status) {
            // An order that is already cancelled is what the client wants (RFC 9110, 13.1.1): the first response may have been lost.
            if (versions !== undefined && !versions.includes(order.version))
              throw problem("PRECONDITION_FAILED", "the order has changed since it was read");
            await store.writeCancelled(query, id);
          }
          return (await store.findOrders(query, [id]))[0];
        });
        if (cancelled === undefined) throw notFound();
        this.relay();
        this.notifyChanged([id]);
        return store.present(cancelled);
      }),

      outbox: implement(contract.outbox, async function (this: Orders, ctx) {
        adminOf(ctx);
        const { state = "pending,parked", limit = 20, cursor } = ctx.params;
        return this.lists.read((db) => store.listOutbox(db, state.toUpperCase().split(","), limit, cursor));
      }),

      replay: implement(contract.replay, async function (this: Orders, ctx) {
        adminOf(ctx);
        await call(ctx, record, { action: "outbox.replayed", subject: String(ctx.params.id) });
        const replayed = await store.replayRow(this.db, ctx.params.id);
        if (replayed === undefined) throw problem("NOT_FOUND", "there is no such outbox row");
        if (!replayed) throw problem("NOT_PARKED", "this outbox row is not parked");
        this.relay();
        return {};
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
        const parked = await store.refuseOrders(this.db, ctx.params.orders);
        for (const { order_id, last_error } of parked) this.logger.error(`an outbox row of order ${order_id} is parked: ${last_error}`);
        this.relayHeldBack();
      }),
    },

    methods: {
      /** Takes one order. The methods made in `created` batch what many orders do at the same moment. */
      async takeOrder(this: Orders, { user_id, idempotency_key = randomUUID(), ...content }: OrderRequest): Promise<Created> {
        const wanted = mergeLines(content.items);
        const key: OrderKey = { user_id, idempotency_key, request_hash: hashRequest({ ...content, items: wanted }) };
        let refusal: unknown;
        try {
          const placement = place(wanted, await this.quote(wanted.map((line) => line.product_id)));
          if (!placement.ok) throw refused(placement.refusal);
          const order = await this.commit({ ...key, lines: placement.lines, total_cents: placement.total_cents });
          if (order !== undefined) return { order: store.present(order), replayed: false };
        } catch (error) {
          refusal = isKeyLockTimeout(error)
            ? problem("IDEMPOTENCY_IN_FLIGHT", "the first request with this key is still in progress")
            : explained(error);
        }
        // If the key was used before, or meanwhile by a concurrent request, return that order: a repeat never turns into 404, 409 or 503.
        const first = await this.findReplay(key).catch((error: unknown) => {
          logFailure(this.logger, "an order", refusal, currentRequestId()); // nothing else would log it
          throw error;
        });
        if (first !== undefined) return first;
        throw refusal instanceof Error ? refusal : new Error("a key was taken, but its order was not found");
      },

      /** The response to the first request with a key; undefined if there was none. */
      async findReplay(this: Orders, key: OrderKey): Promise<Created | undefined> {
        const found = await this.findByKey(key).catch((error: unknown) => {
          throw explained(error);
        });
        if (found === undefined) return undefined;
        if (found.order === undefined) throw problem("IDEMPOTENCY_KEY_REUSED", "this key was used before with a different body");
        return { order: store.presentAsCreated(found.order), replayed: true };
      },

      /** Notifies gateways that these orders have changed. To be called after the commit. Never throws and never blocks. */
      notifyChanged(this: Orders, ids: readonly string[]) {
        if (ids.length === 0) return;
        for (const id of ids) this.changed.add(id);
        this.notifying ??= setTimeout(() => {
          this.notifying = undefined;
          const orders = [...this.changed].map((order_id) => ({ order_id }));
          this.changed.clear();
          for (let i = 0; i < orders.length; i += MAX_BATCH)
            broadcast(this.broker, contract.orderChanged, { orders: orders.slice(i, i + MAX_BATCH) });
        }, NOTIFY_AFTER_MS).unref();
      },
    },

    created(this: Orders) {
      this.changed = new Set();
      this.quote = batch(
        async (wanted) => {
          const quotes = await call(this.broker, quote, { ids: [...new Set(wanted.flat())] }).catch((error: unknown) => {
            throw isUnreachable(error) ? problem("SERVICE_UNAVAILABLE", "the catalogue is unavailable", { cause: error }) : error;
          });
          const byId = new Map(quotes.map((one) => [one.id, one]));
          return wanted.map((ids) => ids.flatMap((id) => byId.get(id) ?? []));
        },
        { weight: { of: (ids) => ids.length, max: QUOTES_PER_CALL } },
      );

      this.commit = batch(
        async (drafts) => {
          const { orders, claimed } = await store.insertOrders(this.db, drafts, this.inFlightCap(contract.orderCreated.name));
          this.publish(claimed);
          if (claimed.length < orders.length) this.relay();
          return orders;
        },
        { mayBeOfOne: mayBeOfOneKey, inParallel: true, weight: { of: ({ lines }) => lines.length, max: contract.LINES_PER_CALL } },
      );
      this.findByKey = batch((keys) => store.findByKeys(this.db, keys));

      this.settle = batch(
        async (outcomes) => {
          const { changed, misfits } = await store.settleOrders(this.db, outcomes);
          this.notifyChanged(changed);
          for (const { order_id, message, isParked } of misfits) {
            if (isParked) this.logger.error(`an outbox row of order ${order_id} is parked, since a reply does not fit: ${message}`);
            else this.logger.warn(`a reply that does not fit order ${order_id} is ignored: ${message}`);
          }
          return outcomes.map(() => undefined);
        },
        { places: 4 * MAX_IN_FLIGHT, mayBeOfOne: mayBeOfOneOrder, inParallel: true },
      );
    },

    stopped(this: Orders) {
      clearTimeout(this.notifying);
    },
  };
}

/*
 * A key whose first request is in progress elsewhere, or an order that another node has locked, makes the whole batch wait. Retried
 * individually and in parallel, the other items don't wait again; they would if a whole table were locked.
 */
const mayBeOfOneKey = (error: unknown): boolean => isKeyLockTimeout(error) || mayBeOfOne(error);
const mayBeOfOneOrder = (error: unknown): boolean => isLockTimeout(error) || mayBeOfOne(error);

/** The audit's calls to products, on behalf of its caller. */
const productsSide = (ctx: Context<unknown, Meta>): ProductsSide => ({
  audit: () => call(ctx, productsAudit, {}),
  reservations: (after, upto) => call(ctx, reservations, { after, upto }),
});

type Found = Pick<store.OrderRow, "user_id">;

type Viewer = Pick<Caller, "role"> & { id?: string };

/** The caller. The shop itself has the permissions of an admin. */
const viewerOf = (ctx: Context<unknown, Meta>): Viewer =>
  ctx.meta.user === undefined && ctx.meta.system === true ? { role: "admin" } : callerOf(ctx);

/** Whether the order exists and this viewer may see it. */
const isSeenBy = <O extends Found>(order: O | undefined, { id, role }: Viewer): order is O =>
  order !== undefined && (order.user_id === id || role === "admin");

const notFound = () => problem("ORDER_NOT_FOUND", "there is no such order");

function refused(refusal: Refusal) {
  switch (refusal.kind) {
    case "unknown":
      return problem("PRODUCT_NOT_FOUND", `there is no product ${refusal.product_ids.join(", ")}`);
    case "short":
      return problem("INSUFFICIENT_STOCK", describeShortages(refusal.shortages), { shortages: refusal.shortages });
  }
}
