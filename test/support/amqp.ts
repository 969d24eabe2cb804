import { execFile } from "node:child_process";
import { connect as dial, createServer, type AddressInfo, type Server, type Socket } from "node:net";
import { promisify } from "node:util";
import { connect, type Channel } from "amqplib";

const run = promisify(execFile);
let reachable: Promise<string | undefined> | undefined;

/**
 * RabbitMQ's URL, from TEST_AMQP_URL or the default of a local installation. Without RabbitMQ, tests that need it are
 * skipped; on CI, this throws instead.
 */
export function amqpUrl(): Promise<string | undefined> {
  reachable ??= find(process.env.TEST_AMQP_URL ?? "amqp://guest:guest@127.0.0.1:5672");
  return reachable;
}

async function find(url: string): Promise<string | undefined> {
  try {
    await withChannel(url, () => Promise.resolve());
    return url;
  } catch (err) {
    if (process.env.CI) throw new Error("RabbitMQ is needed on CI: set TEST_AMQP_URL", { cause: err });
    console.warn(`skipped: no RabbitMQ at ${new URL(url).host} (${String(err)}); set TEST_AMQP_URL`);
    return undefined;
  }
}

/** Uses a channel on a separate connection, so that a server error closes nothing else. */
export async function withChannel<T>(url: string, use: (channel: Channel) => Promise<T>): Promise<T> {
  const connection = await connect(url, { timeout: 5_000 });
  connection.on("error", () => undefined);
  try {
    const channel = await connection.createChannel();
    channel.on("error", () => undefined); // the awaited operation rejects with it
    return await use(channel);
  } finally {
    await connection.close();
  }
}

/**
 * Deletes the exchanges and queues that brokers of this namespace leave behind. Our nodes' queues are deleted with their connections.
 * @param nodeIDs nodes with Moleculer's own transporter, whose queues survive their connections
 */
export async function forget(url: string, namespace: string, nodeIDs: string[] = []): Promise<void> {
  await withChannel(url, async (channel) => {
    for (const kind of ["REQ", "RES", "EVENT"])
      for (const nodeID of nodeIDs) await channel.deleteQueue(`MOL-${namespace}.${kind}.${nodeID}`);
    for (const kind of ["DISCOVER", "INFO", "DISCONNECT", "HEARTBEAT", "PING"]) await channel.deleteExchange(`MOL-${namespace}.${kind}`);
  });
}

/**
 * The Erlang pids of the connections with this name; undefined if rabbitmqctl can't be used, or manages a RabbitMQ other than
 * the tests'.
 */
export async function connectionPids(name: string): Promise<string[] | undefined> {
  try {
    const { stdout } = await run("rabbitmqctl", ["-q", "list_connections", "pid", "client_properties"]);
    const lines = stdout.split("\n").filter((line) => line.includes(`{"connection_name","${name}"}`));
    return stdout.trim() ? lines.map((line) => line.split("\t")[0] ?? "") : undefined;
  } catch {
    return undefined;
  }
}

export async function closeConnection(pid: string): Promise<void> {
  await run("rabbitmqctl", ["-q", "close_connection", pid, "closed by a test"]);
}

/** A TCP proxy between one node and RabbitMQ. It can be cut, refused, frozen and restored without affecting other nodes. */
export class Line {
  /** when each connection was accepted, by Date.now() */
  readonly accepted: number[] = [];
  /** a chunk from the node for which this returns true is dropped, and its connection closed */
  cutsAt: (chunk: Buffer) => boolean = () => false;
  private readonly pairs = new Set<[Socket, Socket]>();
  private readonly abandoned: Socket[] = [];
  private refusing = false;
  private swallowing = false;

  private constructor(
    readonly url: string,
    private readonly server: Server,
  ) {}

  static async to(target: string): Promise<Line> {
    const url = new URL(target);
    const port = Number(url.port || 5672);
    const host = url.hostname;
    const server = createServer((near) => line.accept(near, dial({ port, host })));
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    url.host = `127.0.0.1:${(server.address() as AddressInfo).port}`;
    const line = new Line(url.href, server);
    return line;
  }

  /** the number of open connections */
  get open(): number {
    return this.pairs.size;
  }

  cut(): void {
    for (const pair of this.pairs) for (const socket of pair) socket.destroy();
  }

  refuse(): void {
    this.refusing = true;
    this.cut();
  }

  /** Forwards nothing and closes nothing, as when a cable is pulled. Only cut() ends it. */
  freeze(): void {
    for (const pair of this.pairs) for (const socket of pair) socket.removeAllListeners("data").pause();
  }

  /** Accepts connections but forwards nothing. */
  swallow(): void {
    this.swallowing = true;
  }

  restore(): void {
    this.refusing = false;
  }

  /** Closes the node's end without notifying RabbitMQ, as when a host loses power. Only close() ends it. */
  abandon(): void {
    for (const pair of this.pairs) {
      const [near, far] = pair;
      near.removeAllListeners("close").destroy();
      far.removeAllListeners("data").pause();
      this.abandoned.push(far);
      this.pairs.delete(pair);
    }
  }

  async close(): Promise<void> {
    this.cut();
    for (const socket of this.abandoned) socket.destroy();
    await new Promise((resolve) => this.server.close(resolve));
  }

  private accept(near: Socket, far: Socket): void {
    this.accepted.push(Date.now());
    const pair: [Socket, Socket] = [near, far];
    this.pairs.add(pair);
    for (const socket of pair) {
      socket.setNoDelay(true);
      socket.on("error", () => undefined); // "close" follows
      socket.on("close", () => {
        this.pairs.delete(pair);
        near.destroy();
        far.destroy();
      });
    }
    if (this.swallowing) return;
    near.on("data", (chunk: Buffer) => (this.cutsAt(chunk) ? near.destroy() : far.write(chunk)));
    far.on("data", (chunk: Buffer) => near.write(chunk));
    if (this.refusing) near.destroy();
  }
}

/** Waits for a condition instead of a fixed time. @throws with the name of the condition */
export async function until(what: string, holds: () => boolean | Promise<boolean>, ms = 20_000): Promise<void> {
  const deadline = Date.now() + ms;
  while (!(await holds())) {
    if (Date.now() > deadline) throw new Error(`still waiting after ${ms} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
