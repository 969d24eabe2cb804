import { execFile, spawn, type ChildProcess } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdir, writeFile } from "node:fs/promises";
import { openSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { randomBytes } from "node:crypto";
import { connect } from "amqplib";
import { killTree } from "./node";
import { freePorts, until } from "./wait";

const run = promisify(execFile);
/** Debian's; its twins in /usr/sbin insist on the user and the files of the machine's own RabbitMQ. */
const BIN = "/usr/lib/rabbitmq/bin";
const START_MS = 90_000;

/** A RabbitMQ that shares nothing with the machine's own: name, ports, epmd, cookie and files are its own. */
export class RabbitMQ {
  private readonly epmd: ChildProcess;
  private server: ChildProcess | undefined;

  private constructor(
    private readonly env: Record<string, string>,
    readonly url: string,
    private readonly log: number,
  ) {
    const { ERL_EPMD_PORT = "" } = env;
    this.epmd = spawn("epmd", ["-port", ERL_EPMD_PORT, "-address", "127.0.0.1"], { detached: true, stdio: "ignore", env });
  }

  static isInstalled(): boolean {
    return existsSync(join(BIN, "rabbitmq-server"));
  }

  /** @param over configuration and environment that it gets as well; user, password and virtual host of its URL */
  static async start(
    folder: string,
    over: { config?: string; env?: Record<string, string>; user?: string; path?: string } = {},
  ): Promise<RabbitMQ> {
    await mkdir(folder, { recursive: true });
    const [port = 0, distribution = 0, epmd = 0] = await freePorts(3);
    const file = async (name: string, content: string): Promise<string> => {
      await writeFile(join(folder, name), content, { mode: 0o600 });
      return join(folder, name);
    };
    await file(".erlang.cookie", randomBytes(15).toString("hex").toUpperCase());
    const env = {
      PATH: process.env["PATH"] ?? "",
      HOME: folder,
      LANG: "C.UTF-8",
      ERL_EPMD_PORT: String(epmd),
      ERL_EPMD_ADDRESS: "127.0.0.1",
      RABBITMQ_NODENAME: `chaos${process.pid}@localhost`,
      RABBITMQ_DIST_PORT: String(distribution),
      RABBITMQ_NODE_PORT: String(port),
      RABBITMQ_NODE_IP_ADDRESS: "127.0.0.1",
      RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS: "-kernel inet_dist_use_interface {127,0,0,1}",
      RABBITMQ_MNESIA_BASE: join(folder, "mnesia"),
      RABBITMQ_LOG_BASE: join(folder, "log"),
      RABBITMQ_PID_FILE: join(folder, "pid"),
      RABBITMQ_ENABLED_PLUGINS_FILE: await file("enabled_plugins", "[]."),
      RABBITMQ_CONF_ENV_FILE: await file("env.conf", ""),
      RABBITMQ_CONFIG_FILE: await file("rabbitmq.conf", `listeners.tcp.local = 127.0.0.1:${port}\n${over.config ?? ""}`),
      ...over.env,
    };
    const url = `amqp://${over.user ?? "guest:guest"}@127.0.0.1:${port}${over.path ?? ""}`;
    const rabbit = new RabbitMQ(env, url, openSync(join(folder, "out"), "a"));
    try {
      await rabbit.launch();
    } catch (error) {
      await rabbit.end();
      throw error;
    }
    return rabbit;
  }

  /** Starts the server process and waits until it takes connections. */
  async launch(): Promise<void> {
    this.server = spawn(join(BIN, "rabbitmq-server"), { env: this.env, detached: true, stdio: ["ignore", this.log, this.log] });
    await this.answers();
  }

  answers(): Promise<void> {
    const connects = async () => {
      const connection = await connect(this.url, { timeout: 5_000 });
      connection.on("error", () => undefined);
      await connection.close();
      return true;
    };
    return until("RabbitMQ takes connections", connects, START_MS, 250);
  }

  /** SIGKILL to the script that we started and to the RabbitMQ below it. */
  async kill(): Promise<void> {
    const { server } = this;
    if (server === undefined) return;
    killTree(server);
    await until("RabbitMQ has ended", () => server.exitCode !== null || server.signalCode !== null);
  }

  /** @returns what rabbitmqctl prints */
  async ctl(...args: string[]): Promise<string> {
    return (await run(join(BIN, "rabbitmqctl"), ["-q", ...args], { env: this.env, timeout: 60_000 })).stdout;
  }

  async end(): Promise<void> {
    await this.kill();
    this.epmd.kill("SIGKILL");
  }
}
