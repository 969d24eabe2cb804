import { setTimeout as delay } from "node:timers/promises";
import DbService from "moleculer-db";
import SqlAdapter from "moleculer-db-adapter-sequelize";
import type { Service, ServiceSchema } from "moleculer";
import { Client, types } from "pg";
import type { FindOptions, Model, ModelAttributes, ModelStatic, Options, Sequelize, WhereOptions } from "sequelize";
import { implement } from "../broker/contract";
import { problem, reasonOf } from "../broker/errors";
import { metricsOf, type Reading } from "../broker/metrics";
import { health } from "../contracts/contract";
import { Database } from "./database";
import { serversOf } from "./database-url";
import { ListDatabase } from "./database.lists";
import { migrateWhenFree, MigrationRefused } from "./migrations";
import { clientOf } from "./primary";
import { openPooledSession } from "./session";
import { isDatabaseUnavailable } from "./sql-state";

/** The part of moleculer-db-adapter-sequelize that is used here; its own declarations lack these types. */
interface Adapter {
  db: Sequelize;
  model: ModelStatic<Model>;
  connect(): Promise<void>;
  disconnect(): Promise<void>;
  findOne(options: FindOptions): Promise<unknown>;
  updateMany(where: WhereOptions, update: Record<string, unknown>): Promise<number>;
}

/** What this mixin adds to a service. */
export interface WithDatabase {
  /** moleculer-db's adapter on Sequelize, for plain reads and writes. */
  adapter: Adapter;
  /** Hot and batch statements, on the same pool. */
  db: Database;
  /** Lists and searches, on a few separate connections: nothing else waits for them. */
  lists: ListDatabase;
}

interface DatabaseOptions {
  service: string;
  /** Undefined only if nothing connects: in tests of a schema, or on a misconfigured node. */
  url: string | undefined;
  /** Folder of numbered SQL files. */
  migrations: string;
  model: { name: string; define: ModelAttributes };
  /** Milliseconds that a statement waits for a row that is locked. */
  lockTimeoutMs?: number;
}

interface Starting {
  /** Why the service can't start with this database. */
  refusal?: MigrationRefused;
}

const CLOSE_TIMEOUT_MS = 3_000;

/** The error itself, or SERVICE_UNAVAILABLE if it means that the database is unavailable. */
export const explained = (error: unknown): unknown =>
  isDatabaseUnavailable(error) ? problem("SERVICE_UNAVAILABLE", "the database is unavailable", { cause: error }) : error;

/** moleculer-db without its actions, which let a client choose any column, sort and search. */
const DbBase = { ...(DbService as unknown as ServiceSchema), actions: {} }; // it is a schema, and declared as a class

/**
 * A service's own PostgreSQL database: one pool, migrated before the service is ready. The schema holds no state: Sequelize and the models
 * are built in `connect`, so one schema can be used for any number of services in one process.
 */
export function databaseMixin(options: DatabaseOptions): Partial<ServiceSchema> {
  const schema = {
    mixins: [DbBase],
    // Without noSync the adapter would create tables from the model.
    adapter: new SqlAdapter({ ...sequelizeOptions(options), noSync: true }),
    model: { ...options.model, options: { timestamps: false, freezeTableName: true } },
    actions: {
      health: implement(health(options.service), async function (this: Service & WithDatabase) {
        const [row] = await this.db.query<{ is_read_only: boolean }>(
          "select current_setting('transaction_read_only')::boolean as is_read_only",
        );
        if (row?.is_read_only !== false) throw problem("SERVICE_UNAVAILABLE", "the database is read-only");
        return { database: true };
      }),
    },
    started(this: Starting) {
      if (this.refusal !== undefined) throw this.refusal;
    },
    hooks: {
      error: {
        "*": (_ctx: unknown, error: Error) => {
          throw explained(error);
        },
      },
    },
    methods: {
      /** Replaces moleculer-db's method: a pool whose database hangs never closes, but the node must stop anyway. */
      async disconnect(this: Service & Pick<WithDatabase, "adapter"> & Partial<WithDatabase>): Promise<void> {
        const closed = Promise.all([this.adapter.disconnect(), this.lists?.close()]);
        await Promise.race([closed, delay(CLOSE_TIMEOUT_MS, undefined, { ref: false })]);
      },

      /** Replaces moleculer-db's method: migrates first, and stops trying when the node stops. */
      async connect(this: Service & WithDatabase & Starting): Promise<void> {
        if (options.url === undefined) throw new Error(`the ${options.service} service has no database URL`);
        const directory = options.migrations;
        for (let pauseMs = 250; !this.broker.stopping; pauseMs = Math.min(pauseMs * 2, 5_000)) {
          try {
            const isMigrated = await migrateWhenFree({
              url: options.url,
              directory,
              isWanted: () => !this.broker.stopping,
              log: (line) => {
                this.logger.info(line);
              },
            });
            if (!isMigrated) break;
            await this.adapter.connect();
            this.db = new Database(this.adapter.db);
            this.lists = new ListDatabase(
              { ...connectionOf(options.url), ...FOR_ALL, application_name: `${options.service}-lists` },
              SESSION_FOR_ALL,
              clientOf(options.url),
            );
            metricsOf(this.broker)?.observe(`the pools of ${options.service}`, () => [
              ...readPool(options.service, "main", this.db.pool),
              ...readPool(options.service, "lists", this.lists.pool),
            ]);
            return;
          } catch (error) {
            if (error instanceof MigrationRefused) {
              this.refusal = error; // moleculer-db would retry after an error thrown here
              return;
            }
            this.logger.error(`the database is not ready, retrying in ${pauseMs} ms:`, reasonOf(error));
            await this.adapter.disconnect();
            await delay(pauseMs);
          }
        }
        await new Promise(() => undefined); // stopped before it was ready: nothing that needs the database may run
      },
    },
  };
  return schema as unknown as Partial<ServiceSchema>; // `adapter` and `model` are moleculer-db's additions to a schema
}

function readPool(service: string, name: "main" | "lists", pool: Database["pool"]): Reading[] {
  const labels = { service, pool: name };
  return [
    { name: "shop_database_connections_in_use", help: "Connections of a pool that are in use", labels, value: pool.using },
    { name: "shop_database_connections_max", help: "Maximum number of connections of a pool", labels, value: pool.maxSize },
    { name: "shop_database_waiting", help: "Statements and transactions waiting for a connection", labels, value: pool.waiting },
  ];
}

/** Parses the URL with pg, as the migrations do, so that both connect in the same way. */
function connectionOf(url: string | undefined) {
  const first = url && serversOf(url)[0];
  const { host, port, database = "", user = "", password = "", ssl } = new Client(first);
  // pg hides a client's key from printing, and thereby from the copies that Moleculer and Sequelize make of the options.
  const tls: unknown = ssl;
  if (typeof tls === "object" && tls !== null && "key" in tls) Object.defineProperty(tls, "key", { enumerable: true });
  // pg's Client does not expose the options. A URL of a socket may have no host, which URL refuses.
  const query = new URLSearchParams(first?.split("#")[0]?.split("?")[1]);
  const options = query.get("options");
  return { host, port, database, user, password, ssl, ...(options !== null && { options }) };
}

/** Options of every connection. */
const FOR_ALL = {
  keepAlive: true,
  connectionTimeoutMillis: 1_500,
};

/** Settings of every session, apart from its time limits. */
const SESSION_FOR_ALL = {
  // Statements are planned once per connection: a plan that scans a whole table because it is still small would be kept while the table
  // grows. And no statement here is worth JIT compilation.
  enable_seqscan: "off",
  jit: "off",
  idle_in_transaction_session_timeout: 5_000,
};

/** Maximum number of connections of one service on one node. */
const POOL_SIZE = 10;

function sequelizeOptions({ service, url, lockTimeoutMs = 2_000 }: DatabaseOptions): Options & { keepDefaultTimezone: boolean } {
  const { user: username, ssl, options, ...connection } = connectionOf(url);
  return {
    dialect: "postgres",
    dialectModule: { Client: url === undefined ? Client : clientOf(url), types },
    ...connection,
    username,
    logging: false,
    keepDefaultTimezone: true,
    pool: { max: POOL_SIZE, min: 0, acquire: 1_500, idle: 30_000 },
    dialectOptions: {
      ...FOR_ALL,
      application_name: service,
      ssl,
      ...(options !== undefined && { options }),
      clientMinMessages: "ignore",
      query_timeout: 4_000,
    },
    hooks: {
      // A client gets its response within 5 s; and the rows locked by a node that was suspended in mid-transaction are released.
      afterConnect: (connection) =>
        openPooledSession(connection, { ...SESSION_FOR_ALL, statement_timeout: 3_000, lock_timeout: lockTimeoutMs }),
    },
  };
}
