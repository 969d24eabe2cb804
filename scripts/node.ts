import path from "node:path";
import { ServiceBroker, type BrokerOptions } from "moleculer";
import { serveOps } from "../broker/ops";
import { DATABASES, databaseNames, type Config, type DatabaseName, type ServiceName } from "../config";
import { brokerOptions } from "../moleculer.config";
import { startEmbeddedPostgres } from "./embedded-postgres";

/** The name of each service's database, where we make it: in the embedded PostgreSQL, in compose, in the tests. */
export const DATABASE_NAMES: Readonly<Record<DatabaseName, string>> = {
  users: "user_db",
  products: "product_db",
  orders: "order_db",
};

export interface RunningNode {
  broker: ServiceBroker;
  /** Finishes what is under way and leaves; may be called twice. */
  stop(): Promise<void>;
}

interface NodeOptions {
  config: Config;
  services: readonly ServiceName[];
  /** Hears how to stop, before the start has ended. */
  onStop?: (stop: () => Promise<void>) => void;
  /** Serves OPS_PORT, where that is set: for nodes that run on, and not for a script beside one. */
  ops?: boolean;
  /** Over the options of moleculer.config. */
  broker?: BrokerOptions;
}

/** Starts one node with the given services, and an embedded PostgreSQL where it needs one. */
export async function startNode({ config, services, onStop, ops = false, broker: options = {} }: NodeOptions): Promise<RunningNode> {
  const stopDatabases = await provideDatabases(config, services);
  // As the broker's own last step, so that it is taken too where the REPL's `exit` stops the broker.
  const broker = new ServiceBroker({ ...brokerOptions(config), stopped: stopDatabases, ...options });
  let stopping: Promise<void> | undefined;
  const stop = (): Promise<void> => (stopping ??= broker.stop());
  onStop?.(stop);
  try {
    if (ops && config.ops.port !== undefined) await serveOps(broker, config.ops.port, config.ops.host);
    for (const name of services) broker.loadService(serviceFile(name));
    await broker.start();
    if (ops && services.includes("users") && config.keyEncryption.key === undefined)
      broker.logger.warn("the signing keys in user_db are not encrypted: see KEY_ENCRYPTION_KEY in README.md");
  } catch (error) {
    await stop();
    throw error;
  }
  return { broker, stop };
}

/** Beside this file, as source or built. */
export const serviceFile = (name: ServiceName): string =>
  path.join(__dirname, "..", "services", name, `${name}.service${path.extname(__filename)}`);

/** Services read the environment when they are loaded, under moleculer-runner too: that is where the URLs are put. */
export async function provideDatabases(config: Config, services: readonly ServiceName[]): Promise<() => Promise<void>> {
  const missing = databaseNames().filter(([service]) => services.includes(service) && config.databases[service] === undefined);
  if (missing.length === 0) return () => Promise.resolve();
  const postgres = await startEmbeddedPostgres({ dataDir: config.dataDir, databases: Object.values(DATABASE_NAMES) });
  for (const [service] of missing) process.env[DATABASES[service]] = postgres.url(DATABASE_NAMES[service]);
  return () => postgres.stop();
}
