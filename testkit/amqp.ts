import { execFile } from "node:child_process";
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
export async function deleteLeftovers(url: string, namespace: string, nodeIDs: string[] = []): Promise<void> {
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
