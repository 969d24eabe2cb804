import { execFile, spawn, type ChildProcess } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdir, writeFile } from "node:fs/promises";
import { openSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { randomBytes } from "node:crypto";
import { connect } from "amqplib";
import { freePorts } from "./free-ports";
import { killTree } from "./process-tree";
import { eventually } from "./until";

const run = promisify(execFile);
/** Debian's programs; those in /usr/sbin insist on the user and the files of the system's RabbitMQ service. */
const BIN = "/usr/lib/rabbitmq/bin";
const START_MS = 90_000;

/** Additional settings of a broker: configuration, environment, and the user, password and virtual host of its URL. */
interface Overrides {
  config?: string;
  env?: Record<string, string>;
  user?: string;
  path?: string;
}

/** Where a broker runs: on the loopback address, or in a network namespace with its own address. */
export interface Place {
  address: string;
  namespace?: string;
}

interface Identity extends Place {
  name: string;
  cookie: string;
  ports: { amqp: number; distribution: number; epmd: number };
}

const LOOPBACK: Place = { address: "127.0.0.1" };
const newCookie = (): string => randomBytes(15).toString("hex").toUpperCase();

/** A RabbitMQ that shares nothing with the system's service: it has its own name, ports, epmd, cookie and files. */
export class RabbitMQ {
  private epmd: ChildProcess | undefined;
  private server: ChildProcess | undefined;

  private constructor(
    private readonly env: Record<string, string>,
    readonly url: string,
    private readonly log: number,
    private readonly namespace: string | undefined,
  ) {}

  static isInstalled(): boolean {
    return existsSync(join(BIN, "rabbitmq-server"));
  }

  static async start(folder: string, overrides: Overrides = {}): Promise<RabbitMQ> {
    const [amqp = 0, distribution = 0, epmd = 0] = await freePorts(3);
    const name = `chaos${process.pid}@localhost`;
    const identity: Identity = { ...LOOPBACK, name, cookie: newCookie(), ports: { amqp, distribution, epmd } };
    const rabbit = await RabbitMQ.prepare(folder, identity, overrides);
    rabbit.startEpmd();
    try {
      await rabbit.launch();
    } catch (error) {
      await rabbit.stop();
      throw error;
    }
    return rabbit;
  }

  /** Starts a cluster with one broker per place. The brokers share users and virtual hosts. */
  static async startCluster(folder: string, places: readonly Place[], config = ""): Promise<RabbitMQ[]> {
    const [epmd = 0, ...ports] = await freePorts(1 + 2 * places.length);
    const cookie = newCookie();
    const identities = places.map((place, n): Identity => {
      const host = place.namespace === undefined ? "localhost" : place.address;
      const [amqp = 0, distribution = 0] = ports.slice(2 * n);
      return { ...place, name: `chaos${process.pid}-${n + 1}@${host}`, cookie, ports: { amqp, distribution, epmd } };
    });
    const peers = identities.map(({ name }, n) => `cluster_formation.classic_config.nodes.${n + 1} = ${name}\n`).join("");
    // allow guest from other addresses, since the cluster has no other user
    const overrides = { config: `cluster_formation.peer_discovery_backend = classic_config\n${peers}loopback_users = none\n${config}` };
    const brokers = await Promise.all(identities.map((identity, n) => RabbitMQ.prepare(join(folder, String(n + 1)), identity, overrides)));
    // in network namespaces, every broker has its own epmd
    for (const [n, broker] of brokers.entries()) if (n === 0 || broker.namespace !== undefined) broker.startEpmd();
    try {
      await Promise.all(brokers.map((broker) => broker.launch()));
      await eventually("all brokers are one cluster", async () => (await brokers[0]?.countRunning()) === places.length, START_MS, 500);
    } catch (error) {
      await Promise.all(brokers.map((broker) => broker.stop()));
      throw error;
    }
    return brokers;
  }

  private static async prepare(
    folder: string,
    { name, address, namespace, cookie, ports }: Identity,
    overrides: Overrides,
  ): Promise<RabbitMQ> {
    await mkdir(folder, { recursive: true });
    const file = async (name: string, content: string): Promise<string> => {
      await writeFile(join(folder, name), content, { mode: 0o600 });
      return join(folder, name);
    };
    await file(".erlang.cookie", cookie);
    const env = {
      PATH: process.env["PATH"] ?? "",
      HOME: folder,
      LANG: "C.UTF-8",
      ERL_EPMD_PORT: String(ports.epmd),
      ERL_EPMD_ADDRESS: address,
      RABBITMQ_NODENAME: name,
      ...(namespace !== undefined && { RABBITMQ_USE_LONGNAME: "true" }),
      RABBITMQ_DIST_PORT: String(ports.distribution),
      RABBITMQ_NODE_PORT: String(ports.amqp),
      RABBITMQ_NODE_IP_ADDRESS: address,
      RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS: `-kernel inet_dist_use_interface {${address.replaceAll(".", ",")}}`,
      RABBITMQ_MNESIA_BASE: join(folder, "mnesia"),
      RABBITMQ_LOG_BASE: join(folder, "log"),
      RABBITMQ_PID_FILE: join(folder, "pid"),
      RABBITMQ_ENABLED_PLUGINS_FILE: await file("enabled_plugins", "[]."),
      RABBITMQ_CONF_ENV_FILE: await file("env.conf", ""),
      RABBITMQ_CONFIG_FILE: await file("rabbitmq.conf", `listeners.tcp.local = ${address}:${ports.amqp}\n${overrides.config ?? ""}`),
      ...overrides.env,
    };
    const url = `amqp://${overrides.user ?? "guest:guest"}@${address}:${ports.amqp}${overrides.path ?? ""}`;
    return new RabbitMQ(env, url, openSync(join(folder, "out"), "a"), namespace);
  }

  /** Runs a program in the broker's network namespace, if it has one. */
  private command(program: string, args: string[]): [string, string[]] {
    return this.namespace === undefined ? [program, args] : ["ip", ["netns", "exec", this.namespace, program, ...args]];
  }

  private startEpmd(): void {
    const { ERL_EPMD_PORT = "", ERL_EPMD_ADDRESS = "" } = this.env;
    const [program, args] = this.command("epmd", ["-port", ERL_EPMD_PORT, "-address", ERL_EPMD_ADDRESS]);
    this.epmd = spawn(program, args, { detached: true, stdio: "ignore", env: this.env });
  }

  /** Starts the server process and waits until it accepts connections. */
  async launch(): Promise<void> {
    const [program, args] = this.command(join(BIN, "rabbitmq-server"), []);
    this.server = spawn(program, args, { env: this.env, detached: true, stdio: ["ignore", this.log, this.log] });
    await this.untilReady();
  }

  untilReady(): Promise<void> {
    const connects = async () => {
      const connection = await connect(this.url, { timeout: 5_000 });
      connection.on("error", () => undefined);
      await connection.close();
      return true;
    };
    return eventually("RabbitMQ accepts connections", connects, START_MS, 250);
  }

  /** The number of running brokers that it sees in its cluster, including itself. */
  async countRunning(): Promise<number> {
    return Number(await this.ctl("eval", "length(rabbit_nodes:all_running())."));
  }

  /** Sends SIGKILL to the script that we started and to its child RabbitMQ. */
  async kill(): Promise<void> {
    const { server } = this;
    if (server === undefined) return;
    killTree(server);
    await this.exited();
  }

  /** Shuts down as an operator does: closes the connections, then exits. */
  async shutDown(): Promise<void> {
    await this.ctl("stop");
    await this.exited();
  }

  private exited(): Promise<void> {
    return eventually("RabbitMQ has exited", () => this.server?.exitCode !== null || this.server.signalCode !== null);
  }

  /** @returns rabbitmqctl's output */
  async ctl(...args: string[]): Promise<string> {
    const [program, all] = this.command(join(BIN, "rabbitmqctl"), ["-q", ...args]);
    return (await run(program, all, { env: this.env, timeout: 60_000 })).stdout;
  }

  async stop(): Promise<void> {
    await this.kill();
    this.epmd?.kill("SIGKILL");
  }
}
