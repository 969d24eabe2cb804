import { execFile } from "node:child_process";
import { connect as dial, createServer, type AddressInfo, type Server, type Socket } from "node:net";
import { promisify } from "node:util";
import { connect, type Channel } from "amqplib";

const run = promisify(execFile);
let reachable: Promise<string | undefined> | undefined;

/**
 * RabbitMQ's URL, from TEST_AMQP_URL or the default of a local installation. Without RabbitMQ the tests that need it
 * are skipped, but never on CI: there it throws.
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

/** A connection of its own, so that an error of the server closes nothing else. */
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
 * Deletes what brokers of this namespace leave behind. The queues of our nodes end with their connections.
 * @param nodeIDs those with Moleculer's own transporter, whose queues don't
 */
export async function forget(url: string, namespace: string, nodeIDs: string[] = []): Promise<void> {
  await withChannel(url, async (channel) => {
    for (const kind of ["REQ", "RES", "EVENT"])
      for (const nodeID of nodeIDs) await channel.deleteQueue(`MOL-${namespace}.${kind}.${nodeID}`);
    for (const kind of ["DISCOVER", "INFO", "DISCONNECT", "HEARTBEAT", "PING"]) await channel.deleteExchange(`MOL-${namespace}.${kind}`);
  });
}

/**
 * RabbitMQ's processes of the connections with this name; undefined where its command line tool can't be used, or asks
 * another RabbitMQ than the tests'.
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

/** The line between one node and RabbitMQ: it can be cut, refused, frozen and restored without harm to others. */
export class Line {
  /** when each connection was accepted, by Date.now() */
  readonly accepted: number[] = [];
  /** a chunk from the node for which this is true ends its connection instead of reaching RabbitMQ */
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

  /** connections open now */
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

  /** Nothing passes and nothing is closed, as when a cable is pulled; only cut() ends it. */
  freeze(): void {
    for (const pair of this.pairs) for (const socket of pair) socket.removeAllListeners("data").pause();
  }

  /** Takes connections and passes nothing on. */
  swallow(): void {
    this.swallowing = true;
  }

  restore(): void {
    this.refusing = false;
  }

  /** The node's end is gone, and RabbitMQ is not told: as when a host loses its power. Only close() ends it. */
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

/** Waits for a condition instead of a time; fails with what it waited for. */
export async function until(what: string, holds: () => boolean | Promise<boolean>, ms = 20_000): Promise<void> {
  const deadline = Date.now() + ms;
  while (!(await holds())) {
    if (Date.now() > deadline) throw new Error(`still waiting after ${ms} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
