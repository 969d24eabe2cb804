import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:net";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { ServiceBroker, type BrokerOptions } from "moleculer";
import { logger } from "../broker/logger";
import { serveOps } from "../broker/ops";
import { DATABASES, databaseNames, type Config, type DatabaseName, type ServiceName } from "../config";
import { brokerOptions } from "../moleculer.config";
import { startEmbeddedPostgres } from "./embedded-postgres";
import { OWN_PARAMETERS } from "./postgres-sessions";

/** Database names, where the project creates the databases: in the embedded PostgreSQL, in compose and in tests. */
export const DATABASE_NAMES: Readonly<Record<DatabaseName, string>> = {
  users: "user_db",
  products: "product_db",
  orders: "order_db",
};

interface RunningNode {
  broker: ServiceBroker;
  /** Drains the node and shuts it down; may be called twice. */
  stop(): Promise<void>;
}

interface NodeOptions {
  config: Config;
  services: readonly ServiceName[];
  /** Called with the function that stops the node, before its start has completed. */
  onStop: (stop: () => Promise<void>) => void;
  /** Serves OPS_PORT, if set. For long-running nodes, not for a script next to one. */
  ops?: boolean;
  /** Overrides options of moleculer.config. */
  broker?: BrokerOptions;
}

/** Starts one node with the given services, and an embedded PostgreSQL if they need one. */
export async function startNode({ config, services, onStop, ops = false, broker: options = {} }: NodeOptions): Promise<RunningNode> {
  if (ops && services.includes("api")) await checkPort(config);
  let logDeath: (report: string) => void = console.error; // until there is a broker
  const providing = provideDatabases(config, services, (report) => {
    logDeath(report);
  });
  onStop(stopOf(providing));
  const stopDatabases = await providing;
  // Databases are stopped in the broker's own last step, so that the REPL's `exit`, which stops the broker, stops them, too.
  const broker = new ServiceBroker({ ...brokerOptions(config), stopped: stopDatabases, ...options });
  logDeath = (report) => {
    broker.logger.error(report);
  };
  logWarnings(broker);
  let stopping: Promise<void> | undefined;
  const stop = (): Promise<void> => (stopping ??= broker.stop());
  onStop(stop);
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

/** Checks the port first, to avoid starting a database in vain. */
async function checkPort({ port, host }: Config): Promise<void> {
  const probe = createServer().listen(port, host);
  try {
    await once(probe, "listening");
  } catch (error) {
    const code = error instanceof Error && "code" in error ? String(error.code) : "unknown";
    throw new Error(`the gateway can't listen on ${host}:${port} (${code}): set PORT or HOST, or stop the process that uses the port`, {
      cause: error,
    });
  }
  probe.close();
  await once(probe, "close");
}

/** Node prints warnings, such as pg's about `sslmode=require`, as plain text, which has no place among the JSON lines of a log. */
function logWarnings(broker: ServiceBroker): void {
  process.removeAllListeners("warning");
  process.on("warning", ({ name, message }) => {
    broker.logger.warn(`${name}: ${message}`);
  });
}

/** Milliseconds that a script waits for the services whose actions it calls. */
const WAIT_MS = 15_000;

/** An id for a node that is started in the environment of another one: two nodes with the same NODE_ID can't join. */
export const besideNode = ({ nodeId }: Config): string => `${nodeId}-${randomBytes(4).toString("hex")}`;

/** Starts a node for a script that calls these services: it joins the running nodes, or hosts the services itself without a transporter. */
export async function startScriptNode({
  config,
  services,
  onStop,
  level,
}: Pick<NodeOptions, "config" | "services" | "onStop"> & { level: "warn" | "error" }): Promise<RunningNode> {
  const hosted = config.transporter === undefined ? services : [];
  const node = await startNode({
    config,
    services: hosted,
    onStop,
    broker: { logger: logger(level, config.log.format), nodeID: besideNode(config) },
  });
  try {
    await node.broker.waitForServices([...services], WAIT_MS);
    return node;
  } catch (error) {
    await node.stop();
    throw error;
  }
}

/** The path of a service's file, as source or built, like this file. */
export const serviceFile = (name: ServiceName): string =>
  path.join(__dirname, "..", "services", name, `${name}.service${path.extname(__filename)}`);

/**
 * Starts an embedded PostgreSQL if a service has no database URL, and restarts it if it dies. The URLs are passed through the environment,
 * which services read when they are loaded, with moleculer-runner too.
 * @param onDeath is called later, with what happens to a server that has died
 * @returns a function that stops it, unless another process uses it
 */
export async function provideDatabases(
  config: Config,
  services: readonly ServiceName[],
  onDeath: (report: string) => void,
): Promise<() => Promise<void>> {
  const missing = databaseNames().filter(([service]) => services.includes(service) && config.databases[service] === undefined);
  if (missing.length === 0) return () => Promise.resolve();
  const postgres = await startEmbeddedPostgres({ dataDir: config.dataDir, databases: Object.values(DATABASE_NAMES), onDeath });
  for (const [service] of missing) process.env[DATABASES[service]] = postgres.url(DATABASE_NAMES[service]) + OWN_PARAMETERS;
  return () => postgres.stop();
}

/** A process that is stopped waits that long for an embedded PostgreSQL that is still starting, and otherwise leaves it to the next start. */
const STARTING_MS = 10_000;

/** A function that stops what `provideDatabases` returns, even before it has. */
export const stopOf = (providing: ReturnType<typeof provideDatabases>) => async (): Promise<void> => {
  const stop = await Promise.race([providing.catch(() => undefined), delay(STARTING_MS, undefined)]); // the caller reports an error
  await stop?.();
};
