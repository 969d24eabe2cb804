import path from "node:path";
import type { Context, Service, ServiceBroker } from "moleculer";
import { DataTypes, literal } from "sequelize";
import { adminOf, handleEach, call, callerOf, implement, viewerOf, type Meta, type SchemaFor } from "../../broker/contract";
import { invalid, preconditionFailed, problem } from "../../broker/errors";
import { loadConfig, type Config } from "../../config";
import { record, type ForeignAction } from "../../contracts/accounts";
import type { Params, Result } from "../../contracts/contract";
import { toCents } from "../../contracts/money";
import { stockActivity } from "../../contracts/operations";
import { orderCancelled, orderCreated, SMALL_ORDER_LINES, type CancelledOrder, type CreatedOrder } from "../../contracts/orders";
import * as contract from "../../contracts/products";
import { batch, type BatchOptions, type Requester } from "../../mixins/batching";
import type { Query } from "../../mixins/database";
import { databaseMixin, explained, type WithDatabase } from "../../mixins/database.mixin";
import { deleteExpiredResponses, once } from "../../mixins/idempotency";
import { replierMixin } from "../../mixins/replier.mixin";
import { isCanceled, shouldRetryIndividually } from "../../mixins/sql-state";
import { cleanupMixin } from "../../mixins/cleanup.mixin";
import { readBusiest } from "./activity.store";
import { auditProducts, reservationsOf } from "./audit.store";
import {
  adjustStock,
  findProducts,
  insertProduct,
  listMovements,
  listProducts,
  present,
  quoteProducts,
  type ProductRow,
} from "./products.store";
import { releaseStock, reserveStock } from "./reservations.store";

type List = Params<typeof contract.list>;
type Page = Result<typeof contract.list>;

type Products = Service &
  WithDatabase & {
    /** These batch the orders that arrive at the same moment into one transaction. */
    reserve(order: CreatedOrder): Promise<contract.Outcome>;
    release(order: CancelledOrder): Promise<contract.Outcome>;
    list(list: List): Promise<Page>;
    /** Two at a time. */
    search(list: List): Promise<Page>;
    find(id: string, query?: Query): Promise<ProductRow>;
    findOwn(ctx: Context<unknown, Meta>, id: string, does?: ForeignAction): Promise<ProductRow>;
  };

const MODEL = {
  name: "products",
  define: {
    id: { type: DataTypes.UUID, primaryKey: true },
    name: DataTypes.TEXT,
    description: DataTypes.TEXT,
    category: DataTypes.TEXT,
    sku: DataTypes.TEXT,
    price_cents: DataTypes.BIGINT,
    quantity: DataTypes.BIGINT,
    seller_id: DataTypes.UUID,
    version: DataTypes.BIGINT,
    edits: DataTypes.BIGINT,
    created_at: DataTypes.DATE,
    updated_at: DataTypes.DATE,
    archived_at: DataTypes.DATE,
  },
};

const REPLIES = { settled: contract.stockSettled, refused: contract.stockRefused };

/** The catalogue and the inventory. */
export default function products(_broker: ServiceBroker, config: Config = loadConfig()): SchemaFor<Products> {
  return {
    name: "products",
    mixins: [
      // The inventory handler: reserves each order's stock, all lines or none.
      replierMixin(orderCreated, REPLIES, function (this: Products, order) {
        return this.reserve(order);
      }),
      // Releases the stock of cancelled orders.
      replierMixin(orderCancelled, REPLIES, function (this: Products, order) {
        return this.release(order);
      }),
      cleanupMixin(deleteExpiredResponses),
      databaseMixin({
        service: "products",
        url: config.databases.products,
        migrations: path.join(__dirname, "migrations"),
        model: MODEL,
      }),
    ],

    actions: {
      create: implement(contract.create, async function (this: Products, ctx) {
        const seller = callerOf(ctx);
        return once(this.db, contract.create, ctx, {
          change: (query) => insertProduct(query, ctx.params, seller.id),
          isOneStatement: true,
        });
      }),

      get: implement(contract.get, async function (this: Products, ctx) {
        return present(await this.find(ctx.params.id));
      }),

      getMany: implement(contract.getMany, async function (this: Products, ctx) {
        const found = new Map((await findProducts(this.db.query, ctx.params.ids)).map((row) => [row.id, present(row)]));
        return ctx.params.ids.map((id) => found.get(id) ?? null);
      }),

      list: implement(contract.list, async function (this: Products, ctx) {
        return this.list(ctx.params);
      }),

      listMany: implement(contract.listMany, async function (this: Products, ctx) {
        return handleEach(this, contract.list.name, ctx.params.lists, (list) => this.list(list));
      }),

      update: implement(contract.update, async function (this: Products, ctx) {
        const { id, tags, price, ...rest } = ctx.params;
        await this.findOwn(ctx, id, "product.updated");
        const [, [updated]] = await this.adapter.model.update(
          {
            ...rest,
            ...(price !== undefined && { price_cents: toCents(price) }),
            version: literal("version + 1"),
            edits: literal("edits + 1"),
            updated_at: literal("now()"),
          },
          { where: { id, archived_at: null, ...unedited(tags) }, returning: true },
        );
        if (updated === undefined) throw tags === undefined ? notFound() : stale(tags);
        return present(updated.get({ plain: true }) as ProductRow); // the model's columns
      }),

      archive: implement(contract.archive, async function (this: Products, ctx) {
        const { id, tags } = ctx.params;
        await this.findOwn(ctx, id, "product.archived");
        const archived = await this.adapter.updateMany(
          { id, archived_at: null, ...unedited(tags) },
          { archived_at: literal("now()"), version: literal("version + 1"), edits: literal("edits + 1") },
        );
        if (archived === 0 && tags !== undefined) throw stale(tags);
        return {};
      }),

      adjust: implement(contract.adjust, async function (this: Products, ctx) {
        const { id, tags, delta, reason = "adjusted by hand" } = ctx.params;
        return once(this.db, contract.adjust, ctx, {
          prepare: () => this.findOwn(ctx, id, "stock.adjusted"),
          change: async (query) => {
            const adjusted = await adjustStock(query, { id, tags, delta, reason, max: contract.MAX_QUANTITY });
            if (adjusted !== undefined) return adjusted;
            const { edits, version } = await this.find(id, query); // which may have been archived meanwhile
            if (tags !== undefined && !tags.some((tag) => tag.edits === edits && tag.version === version)) throw stale(tags);
            if (delta < 0) throw problem("INSUFFICIENT_STOCK", `fewer than ${-delta} units are available`);
            throw invalid("delta", `would lead to more than ${contract.MAX_QUANTITY} units, including those reserved for orders`);
          },
          isOneStatement: true,
        });
      }),

      ledger: implement(contract.ledger, async function (this: Products, ctx) {
        await this.findOwn(ctx, ctx.params.id);
        const { id, limit = 20, cursor } = ctx.params;
        return this.lists.read((db) => listMovements(db, id, limit, cursor));
      }),

      quote: implement(contract.quote, async function (this: Products, ctx) {
        return quoteProducts(this.db, ctx.params.ids);
      }),

      reservations: implement(contract.reservations, async function (this: Products, ctx) {
        adminOf(ctx);
        return reservationsOf(this.db, ctx.params.after, ctx.params.upto);
      }),

      release: implement(contract.release, async function (this: Products, ctx) {
        adminOf(ctx);
        await releaseStock(this.db, [ctx.params.order_id]);
        return {};
      }),

      activity: implement(stockActivity, async function (this: Products) {
        return { busiest: await readBusiest(this.db) };
      }),

      audit: implement(contract.productsAudit, async function (this: Products, ctx) {
        adminOf(ctx);
        return auditProducts(this.db);
      }),
    },

    methods: {
      async list(this: Products, list: List): Promise<Page> {
        if ((list.min_price ?? 0) > (list.max_price ?? Infinity)) throw problem("BAD_REQUEST", "min_price is above max_price");
        const page = list.q === undefined ? this.lists.read((db) => listProducts(db, list)) : this.search(list);
        return page.catch((error: unknown) => {
          throw explained(error); // no hook sees the error of one item of a batched call
        });
      },

      async find(this: Products, id: string, query: Query = this.db.query): Promise<ProductRow> {
        const [product] = await findProducts(query, [id]);
        if (product === undefined) throw notFound();
        return product;
      },

      /** @param does for the audit log: what an admin is about to do to another user's product */
      async findOwn(this: Products, ctx: Context<unknown, Meta>, id: string, does?: ForeignAction): Promise<ProductRow> {
        const viewer = viewerOf(ctx);
        const product = await this.find(id);
        if (product.seller_id === viewer.id) return product;
        adminOf(ctx, "only its seller or an admin may do this");
        if (does !== undefined) await call(ctx, record, { action: does, subject: id });
        return product;
      },
    },

    created(this: Products) {
      this.search = batch((lists) => Promise.all(lists.map((list) => this.lists.read((db) => listProducts(db, list)))), SEARCHES);
      const reserve = (options: BatchOptions<CreatedOrder>) =>
        batch<CreatedOrder, contract.Outcome>(async (orders) => inOrder(await reserveStock(this.db, orders), orders.map(idOf)), {
          ...SETTLING,
          weight: { of: ({ lines }) => lines.length, max: LINES_LOCKED },
          ...options,
        });
      const [reserveSmall, reserveLarge] = [reserve({}), reserve({ inFlight: 1 })];
      // The event doesn't contain the lines: only the transaction knows their number.
      const release = batch<CancelledOrder, contract.Outcome>(
        async (orders) => {
          const ids = orders.map(idOf);
          const outcomes = await releaseStock(this.db, ids, LINES_LOCKED);
          return inOrder(outcomes, ids.slice(0, outcomes.length));
        },
        { ...SETTLING, size: MAX_RELEASED, allowPartialResults: true },
      );
      this.reserve = (order) => (order.lines.length > SMALL_ORDER_LINES ? reserveLarge : reserveSmall)(order, buyerOf(order));
      this.release = (order) => release(order, buyerOf(order));
    },
  };
}

/**
 * Two searches at a time, which leaves a list connection to lists without a search. After the longest wait a search still has time for its
 * two statements within a call.
 */
const SEARCHES = { size: 1, inFlight: 2, places: 256, patienceMs: 900 };

/**
 * Maximum number of lines whose products one transaction locks: it holds the locks for 5 ms, but for 100 to 300 ms if the products have the
 * longest texts and sell out, since that adds their entries to each index again.
 */
const LINES_LOCKED = 128;
/** Maximum number of cancelled orders in one batch. */
const MAX_RELEASED = 4;

const idOf = (order: CancelledOrder): string => order.order_id;

/**
 * Buyers take turns. All have the same address, whose quarter of the places covers the relay's in-flight cap and some republished orders.
 * An order that is republished while it waits is processed once. Any error may be caused by a single order, also a statement that took too
 * long, except an unavailable database and a lock timeout, since most orders of a batch want the locked product.
 */
const SETTLING = {
  places: 16_384,
  keyOf: idOf,
  shouldRetryIndividually: (error: unknown) => shouldRetryIndividually(error) || isCanceled(error),
};

const buyerOf = ({ user_id }: CancelledOrder): Requester => ({ address: "", user: user_id, isWanted: () => true });

/** The outcome of each requested order, in the order of the request; an order may be in it twice. */
function inOrder(outcomes: readonly contract.Outcome[], orderIds: readonly string[]): (contract.Outcome | Error)[] {
  const byId = new Map(outcomes.map((outcome) => [outcome.order_id, outcome]));
  return orderIds.map((id) => byId.get(id) ?? new Error(`order ${id} has no outcome`));
}

/** The condition that a product was not edited since one of these ETags, whatever happened to its stock. */
const unedited = (tags: readonly contract.Tag[] | undefined) => tags && { edits: tags.map(({ edits }) => edits) };

const notFound = () => problem("PRODUCT_NOT_FOUND", "there is no such product");
const stale = (tags: readonly contract.Tag[]) => preconditionFailed("product", tags);
