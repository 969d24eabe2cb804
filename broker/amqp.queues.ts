import { setTimeout as pause } from "node:timers/promises";
import type { Channel, ChannelModel, Options } from "amqplib";
import type { Logger } from "moleculer";

/** A node has a queue for each of these packets of Moleculer's. */
const PACKETS = ["EVENT", "REQ", "RES", "DISCOVER", "INFO", "DISCONNECT", "HEARTBEAT", "PING", "PONG"] as const;

/**
 * A node's queues end with its connection. Durable ones would belong to one broker for good: while that is down, no other broker of its
 * cluster lets them be declared again. What waits in them is lost with them, as anything that is sent may be.
 */
export const NODE_QUEUE: Options.AssertQueue = { exclusive: true, durable: false };

/** NOT_FOUND: its broker is down; RESOURCE_LOCKED: another connection's; PRECONDITION_FAILED: declared in another way, or in use. */
const REFUSALS: readonly unknown[] = [404, 405, 406];
/** Doubled each time. */
const FIRST_WAIT_MS = 50;
const LONGEST_WAIT_MS = 2_000;
/** By its heartbeats of 5 s RabbitMQ notices within 15 s that a connection is dead. */
const PATIENCE_MS = 20_000;

/** The node that a queue belongs to. */
export function nodeOf(queue: string, prefix: string): string | undefined {
  const [packet = "", ...nodeID] = queue.startsWith(`${prefix}.`) ? queue.slice(prefix.length + 1).split(".") : [];
  return PACKETS.some((one) => one === packet) && nodeID.length > 0 ? nodeID.join(".") : undefined;
}

interface Node {
  readonly nodeID: string;
  readonly prefix: string;
  readonly logger: Logger;
}

/**
 * Declares the queues of a node. Another connection may have them: this node's last one, until RabbitMQ has noticed that it is dead.
 * @throws after PATIENCE_MS, or when the connection ends
 */
export async function claimQueues(connection: ChannelModel, { nodeID, prefix, logger }: Node): Promise<void> {
  const deadline = performance.now() + PATIENCE_MS;
  for (let waitMs = FIRST_WAIT_MS; ;) {
    let queue = "";
    const refusal = await refused(connection, async (channel) => {
      for (const packet of PACKETS) await channel.assertQueue((queue = `${prefix}.${packet}.${nodeID}`), NODE_QUEUE);
    });
    if (refusal === undefined) return;
    // one that outlived its connection, as those of older versions do; refused where it is another connection's or in use
    if ((await refused(connection, (channel) => channel.deleteQueue(queue, { ifUnused: true }))) === undefined) continue;
    const why = `RabbitMQ still has the queues of an earlier connection of '${nodeID}', or another node has the same NODE_ID`;
    if (performance.now() > deadline) throw new Error(`${why} (${refusal})`);
    if (waitMs === FIRST_WAIT_MS) logger.warn(`AMQP: ${why}. They are asked for again.`);
    await pause(waitMs);
    waitMs = Math.min(2 * waitMs, LONGEST_WAIT_MS);
  }
}

/** Does it on a channel of its own, which a refusal closes. @returns why it was refused, or nothing where it was done */
async function refused(connection: ChannelModel, act: (channel: Channel) => Promise<unknown>): Promise<string | undefined> {
  const channel = await connection.createChannel();
  channel.on("error", () => undefined); // what was asked for is rejected as well
  try {
    await act(channel);
    await channel.close();
    return undefined;
  } catch (err) {
    if (err instanceof Error && "code" in err && REFUSALS.includes(err.code)) return err.message;
    throw err;
  }
}
