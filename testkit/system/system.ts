import { chmodSync, mkdirSync, readlinkSync, realpathSync } from "node:fs";
import path from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { ServiceBroker } from "moleculer";
import type { QueryResultRow } from "pg";
import { amqpTransporter } from "../../broker/amqp.transporter";
import { databaseNames, DATABASES, SERVICES, type DatabaseName, type ServiceName } from "../../config";
import { startEmbeddedPostgres, type EmbeddedPostgres } from "../../scripts/embedded-postgres";
import { DATABASE_NAMES } from "../../scripts/node";
import { readIfThere, readPidFile } from "../../scripts/postgres-binaries";
import { ADMIN } from "../admin";
import { build } from "../build";
import { freePorts } from "../free-ports";
import { isAlive } from "../process-tree";
import { Proxy } from "../proxy";
import { RabbitMQ } from "../rabbitmq";
import { sql } from "../sql";
import { eventually } from "../until";
import { startBalancer } from "./balancer";
import { FAILPOINTS, SystemNode } from "./node";

export const NAMESPACE = "chaos";

/** What loads and verdicts need to know about a shop. */
export interface Shop {
  readonly url: string;
  /** Runs SQL directly in the database, bypassing the proxies. */
  sql<Row extends QueryResultRow>(database: DatabaseName, text: string, values?: unknown[]): Promise<Row[]>;
}

/** The location of its databases. */
export interface Postgres {
  url(database: string): string;
  stop(): Promise<void>;
}

/** The environment that all nodes of the fault runs share. */
export const NODE_ENV = {
  BCRYPT_COST: "4",
  RATE_LIMIT_REGISTER: "0", // all users of a load come from the same few addresses
  ACCESS_TOKEN_TTL: "86400",
  ADMIN_EMAIL: ADMIN.email,
  ADMIN_PASSWORD: ADMIN.password,
  NAMESPACE,
};

/** A place for one node: its proxy to RabbitMQ, its ports and its build stay the same across restarts. */
export interface Slot {
  service: ServiceName;
  name: string;
  /** the folder of its build */
  build: string;
  amqp: Proxy;
  port: number;
  opsPort: number;
  incarnation: number;
  process: SystemNode | undefined;
}

/** How a node is started: additional environment variables and Node.js flags, and a callback for the messages of its preloads. */
export interface LaunchOptions {
  env?: Record<string, string> | undefined;
  flags?: readonly string[];
  onMessage?: (message: unknown) => void;
}

export type Topology = Readonly<Partial<Record<ServiceName, number>>>;

/** RabbitMQ, PostgreSQL, proxies, nodes and a balancer. */
export class System implements Shop {
  readonly slots: Slot[] = [];
  /** Parts that a fault has added, which are stopped with the system. */
  readonly addedParts = new Set<{ stop(): Promise<void> | void }>();
  private balancer: { url: string; close: () => void } | undefined;
  private isStopped = false;

  private constructor(
    readonly folder: string,
    readonly buildFolder: string,
    readonly rabbit: RabbitMQ,
    private postgres: Postgres,
    readonly databases: Readonly<Record<DatabaseName, Proxy>>,
    private readonly env: Record<string, string>,
  ) {}

  /** @param options `env`: additional variables of every node; `preloads`: files to compile for them, besides the failpoints */
  static async start(
    folder: string,
    onStop: (stop: () => Promise<void>) => void,
    { env = {}, preloads = [] }: { env?: Record<string, string>; preloads?: readonly string[] } = {},
  ): Promise<System> {
    chmodSync(folder, 0o755); // PostgreSQL runs as another user if we are root
    mkdirSync(path.join(folder, "logs"), { recursive: true });
    const buildFolder = await build(folder, [FAILPOINTS, ...preloads]);
    const rabbit = await RabbitMQ.start(path.join(folder, "rabbitmq"));
    onStop(() => rabbit.stop());
    const postgres = await startPostgres(folder);
    onStop(() => system.postgres.stop());
    const system = new System(folder, buildFolder, rabbit, postgres, await proxies(postgres), env);
    onStop(() => system.stop());
    await system.balance();
    return system;
  }

  /** Another system on other databases, with this one's build and RabbitMQ. @param name of its namespace and its folder */
  async another(name: string, postgres: Postgres, more: Record<string, string> = {}): Promise<System> {
    const folder = path.join(this.folder, name);
    mkdirSync(path.join(folder, "logs"), { recursive: true });
    const env = { ...this.env, NAMESPACE: name, ...more };
    const other = new System(folder, this.buildFolder, this.rabbit, postgres, await proxies(postgres), env);
    await other.balance();
    return other;
  }

  private async balance(): Promise<void> {
    this.balancer = await startBalancer(() =>
      this.running("api").map(({ port, process }) => ({ port, isReady: () => isReady(port, process) })),
    );
  }

  get url(): string {
    return this.balancer?.url ?? "";
  }

  sql<Row extends QueryResultRow>(database: DatabaseName, text: string, values?: unknown[]): Promise<Row[]> {
    return sql<Row>(this.postgres.url(DATABASE_NAMES[database]), text, values);
  }

  running(service?: ServiceName): (Slot & { process: SystemNode })[] {
    return this.slots.filter(
      (slot): slot is Slot & { process: SystemNode } => (!service || slot.service === service) && slot.process?.isRunning === true,
    );
  }

  /** The first running node of a service. */
  node(service: ServiceName): SystemNode {
    const [slot] = this.running(service);
    if (slot === undefined) throw new Error(`no ${service} node is running`);
    return slot.process;
  }

  /** Starts missing nodes, and stops surplus ones by SIGTERM. */
  async scale(topology: Topology): Promise<void> {
    const changes: Promise<unknown>[] = [];
    for (const service of SERVICES) {
      const count = topology[service] ?? 1;
      for (const slot of this.running(service).slice(count)) changes.push(this.shutDown(slot));
      for (let n = this.slots.filter((slot) => slot.service === service).length; n < count; n++) await this.addSlot(service);
      const down = this.slots.filter((slot) => slot.service === service && slot.process?.isRunning !== true);
      for (const slot of down.slice(0, Math.max(0, count - this.running(service).length))) changes.push(this.launch(slot));
    }
    await Promise.all(changes);
  }

  /** Adds a slot for one more node of a service, without starting it. @param label distinguishes it from the service's other nodes */
  async addSlot(service: ServiceName, build = this.buildFolder, label?: string): Promise<Slot> {
    const name = `${service}-${label ?? this.slots.filter((slot) => slot.service === service).length + 1}`;
    const [port = 0, opsPort = 0] = await freePorts(2);
    const amqp = await Proxy.to(this.rabbit.url, 5672);
    const slot: Slot = { service, name, build, amqp, port, opsPort, incarnation: 0, process: undefined };
    this.slots.push(slot);
    return slot;
  }

  /** Stops a node by SIGTERM. @returns its exit code */
  async shutDown(slot: Slot): Promise<number | null> {
    slot.process?.signal("SIGTERM");
    await slot.process?.exited(30_000);
    return slot.process?.exitCode ?? null;
  }

  /** Starts a new process, with a new node id, in a slot. */
  async launch(slot: Slot, options: LaunchOptions = {}): Promise<SystemNode> {
    if (this.isStopped) throw new Error("the system was stopped");
    const { service } = slot;
    const id = `${slot.name}.${++slot.incarnation}`;
    const database = service === "api" ? {} : { [DATABASES[service]]: this.databases[service].url };
    slot.process = new SystemNode({
      build: slot.build,
      logFile: path.join(this.folder, "logs", `${id}.log`),
      readyUrl: `http://127.0.0.1:${slot.opsPort}/ready`,
      flags: options.flags,
      onMessage: options.onMessage,
      env: {
        ...NODE_ENV,
        NODE_COMPILE_CACHE: path.join(this.buildFolder, "..", "compile-cache"),
        SERVICES: service,
        NODE_ID: id,
        TRANSPORTER: slot.amqp.url,
        PORT: String(slot.port),
        OPS_PORT: String(slot.opsPort),
        ...database,
        ...this.env,
        ...options.env,
      },
    });
    await slot.process.ready();
    return slot.process;
  }

  /** Shuts the nodes of a service down and starts them with other settings. */
  async relaunch(service: ServiceName, options: LaunchOptions = {}): Promise<void> {
    await Promise.all(
      this.running(service).map(async (slot) => {
        await this.shutDown(slot);
        await this.launch(slot, options);
      }),
    );
  }

  /** Restarts like `pg_ctl -m immediate restart`: without a checkpoint or a clean disconnect, followed by recovery. */
  async restartPostgres(): Promise<void> {
    const pid = postmasterOf(this.dataDir);
    process.kill(pid, "SIGQUIT");
    await eventually("PostgreSQL has exited", () => !isAlive(pid), 20_000);
    this.postgres = await startPostgres(this.folder);
    for (const [service] of databaseNames()) this.databases[service].retarget(this.postgres.url(DATABASE_NAMES[service]));
  }

  /** The data directory of its PostgreSQL. */
  get dataDir(): string {
    return path.join(this.folder, "postgres", "postgres");
  }

  get amqpProxies(): Proxy[] {
    return this.running().map((slot) => slot.amqp);
  }

  /** Joins as one more node, bypassing the proxies. */
  async asNode<T>(use: (broker: ServiceBroker) => Promise<T>, services: string[] = ["orders", "products"]): Promise<T> {
    const broker = new ServiceBroker({
      namespace: this.env["NAMESPACE"] ?? NAMESPACE,
      nodeID: `chaos-${Date.now()}`,
      transporter: amqpTransporter(this.rabbit.url),
      logger: false,
    });
    try {
      await broker.start();
      await broker.waitForServices(services, 15_000);
      return await use(broker);
    } finally {
      await pause(200); // lets emitted events leave, since stopping doesn't wait for them
      await broker.stop();
    }
  }

  /** Restarts everything after a fault without recovery, so that the next fault starts from a healthy system. */
  async restartAll(): Promise<void> {
    await Promise.all(
      this.running().map(async (slot) => {
        await slot.process.kill();
        await this.launch(slot);
      }),
    );
  }

  logsContain(text: string): boolean {
    return this.running().some(({ process }) => readIfThere(process.logFile).includes(text));
  }

  async stopAddedParts(): Promise<void> {
    for (const part of [...this.addedParts].reverse()) await part.stop();
    this.addedParts.clear();
  }

  /** Kills everything that is still running. */
  async stop(): Promise<void> {
    this.isStopped = true; // keeps a fault that is still running from starting nodes
    this.balancer?.close();
    await Promise.all(this.running().map(({ process }) => process.kill()));
    await this.stopAddedParts();
    for (const proxy of [...this.slots.map((slot) => slot.amqp), ...Object.values(this.databases)]) proxy.close();
  }
}

async function proxies(postgres: Postgres): Promise<Record<DatabaseName, Proxy>> {
  const proxy = (database: DatabaseName) => Proxy.to(postgres.url(DATABASE_NAMES[database]), 5432);
  return { users: await proxy("users"), products: await proxy("products"), orders: await proxy("orders") };
}

export const startPostgres = (folder: string): Promise<EmbeddedPostgres> =>
  startEmbeddedPostgres({
    dataDir: path.join(folder, "postgres"),
    databases: Object.values(DATABASE_NAMES),
    settings: { max_connections: "200" },
  });

/** Readiness at the public port, which a stopping node closes. */
async function isReady(port: number, node: SystemNode): Promise<boolean> {
  return node.isRunning && (await fetch(`http://127.0.0.1:${port}/health/ready`, { signal: AbortSignal.timeout(1_000) })).ok;
}

/** The pid of the PostgreSQL of our cluster. A pid file may be stale, so the process's working directory must be our folder. */
export function postmasterOf(dataDir: string): number {
  const { pid } = readPidFile(dataDir);
  if (!(pid > 1) || readlinkSync(`/proc/${pid}/cwd`) !== realpathSync(dataDir)) throw new Error(`no PostgreSQL runs in ${dataDir}`);
  return pid;
}
