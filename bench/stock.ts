import { ServiceBroker, type BrokerOptions, type Context, type Service, type ServiceSchema } from "moleculer";
import DbService from "moleculer-db";
import SqlAdapter from "moleculer-db-adapter-sequelize";
import ApiGateway from "moleculer-web";
import { DataTypes, type Model, type ModelStatic, type Sequelize } from "sequelize";

/*
 * A shop as the documentation at moleculer.services shows it: nothing is tuned, and orders may be lost. SERVICE is the service that this process
 * hosts. It logs less than by default and checks no tokens; both are in its favour.
 */
const { SERVICE = "", NAMESPACE = "", NODE_ID = "", TRANSPORTER = "", PORT, DATABASE_URL } = process.env;

type WithAdapter = Service & { adapter: { db: Sequelize; model: ModelStatic<Model> } };
/** The adapter's type declarations don't include a URL. */
function connectionOf(url = "postgres://unset") {
  const { hostname, port, username, password, pathname } = new URL(url);
  return { host: hostname, port: Number(port), username, password: decodeURIComponent(password), database: pathname.slice(1) };
}

interface Line {
  product_id: string;
  quantity: number;
}

const database = { mixins: [DbService], adapter: new SqlAdapter({ dialect: "postgres", ...connectionOf(DATABASE_URL), logging: false }) };

const SERVICES: Record<string, unknown> = {
  api: {
    name: "api",
    mixins: [ApiGateway],
    settings: {
      port: Number(PORT),
      ip: "127.0.0.1",
      routes: [
        {
          path: "/",
          aliases: { "GET products/:id": "products.get", "POST orders": "orders.create" },
          bodyParsers: { json: true },
        },
      ],
    },
  },

  products: {
    ...database,
    name: "products",
    model: {
      name: "product",
      define: {
        id: { type: DataTypes.UUID, primaryKey: true }, // as in all targets
        name: DataTypes.STRING,
        description: DataTypes.TEXT,
        category: DataTypes.STRING,
        sku: DataTypes.STRING,
        price_cents: DataTypes.INTEGER,
        quantity: DataTypes.INTEGER,
        seller_id: DataTypes.INTEGER,
      },
    },
    events: {
      async "order.created"(this: WithAdapter, ctx: Context<{ items: Line[] }>) {
        for (const { product_id, quantity } of ctx.params.items)
          await this.adapter.model.decrement({ quantity }, { where: { id: product_id } });
      },
    },
  },

  orders: {
    ...database,
    name: "orders",
    model: {
      name: "order",
      define: { status: DataTypes.STRING, total_cents: DataTypes.INTEGER, items: DataTypes.JSONB },
    },
    actions: {
      create: {
        params: { items: { type: "array", items: { type: "object", props: { product_id: "string", quantity: "number" } } } },
        async handler(this: WithAdapter, ctx: Context<{ items: Line[] }>) {
          let total_cents = 0;
          for (const { product_id, quantity } of ctx.params.items) {
            const product = await ctx.call<{ price_cents: number }, { id: string }>("products.get", { id: product_id });
            total_cents += product.price_cents * quantity;
          }
          const order = await this.adapter.db.transaction((transaction) =>
            this.adapter.model.create({ status: "PENDING", total_cents, items: ctx.params.items }, { transaction }),
          );
          void ctx.emit("order.created", { items: ctx.params.items });
          return order.get({ plain: true }) as unknown;
        },
      },
    },
  },
};

const service = SERVICES[SERVICE];
if (service === undefined) throw new Error(`SERVICE is "${SERVICE}"`);
const broker = new ServiceBroker({ namespace: NAMESPACE, nodeID: NODE_ID, transporter: TRANSPORTER, logLevel: "warn" } as BrokerOptions);
broker.createService(service as ServiceSchema);
void broker.start();
