import { setTimeout as pause } from "node:timers/promises";
import type { Channel, ChannelModel, Options } from "amqplib";
import type { Logger } from "moleculer";

/** A node has one queue for each of these packet types of Moleculer. */
const PACKETS = ["EVENT", "REQ", "RES", "DISCOVER", "INFO", "DISCONNECT", "HEARTBEAT", "PING", "PONG"] as const;

/**
 * A node's queues are deleted with its connection. A durable queue would belong to one RabbitMQ server permanently: while that is down,
 * no other server of the cluster lets it be redeclared. The messages in a deleted queue are lost, but any message may be lost anyway.
 */
export const NODE_QUEUE: Options.AssertQueue = { exclusive: true, durable: false };

/** NOT_FOUND: its server is down; RESOURCE_LOCKED: owned by another connection; PRECONDITION_FAILED: declared differently, or in use. */
const REFUSALS: readonly unknown[] = [404, 405, 406];
/** Doubled each time. */
const FIRST_WAIT_MS = 50;
const LONGEST_WAIT_MS = 2_000;
/** With heartbeats of 5 s, RabbitMQ detects a dead connection within 15 s. */
const PATIENCE_MS = 20_000;

/** The node that a queue belongs to. */
export function nodeOf(queue: string, prefix: string): string | undefined {
  const [packet = "", ...nodeID] = queue.startsWith(`${prefix}.`) ? queue.slice(prefix.length + 1).split(".") : [];
  return PACKETS.some((one) => one === packet) && nodeID.length > 0 ? nodeID.join(".") : undefined;
}

/**
 * Declares the queues of a node. They may belong to another connection: the node's previous one, until RabbitMQ detects that it is dead.
 * @throws after PATIENCE_MS, or when the connection is closed
 */
export async function claimQueues(
  connection: ChannelModel,
  { nodeID, prefix, logger }: { nodeID: string; prefix: string; logger: Logger },
): Promise<void> {
  const deadline = performance.now() + PATIENCE_MS;
  for (let waitMs = FIRST_WAIT_MS; ;) {
    let queue = "";
    const refusal = await tryOnChannel(connection, async (channel) => {
      for (const packet of PACKETS) await channel.assertQueue((queue = `${prefix}.${packet}.${nodeID}`), NODE_QUEUE);
    });
    if (refusal === undefined) return;
    // a queue that outlived its connection, as those of older versions do; refused if it is in use or belongs to another connection
    if ((await tryOnChannel(connection, (channel) => channel.deleteQueue(queue, { ifUnused: true }))) === undefined) continue;
    const why = `RabbitMQ still has the queues of an earlier connection of '${nodeID}', or another node has the same NODE_ID`;
    if (performance.now() > deadline) throw new Error(`${why} (${refusal})`);
    if (waitMs === FIRST_WAIT_MS) logger.warn(`AMQP: ${why}. Retrying.`);
    await pause(waitMs);
    waitMs = Math.min(2 * waitMs, LONGEST_WAIT_MS);
  }
}

/** Runs `act` on a separate channel, since a refusal closes the channel. @returns the reason for the refusal; undefined on success */
async function tryOnChannel(connection: ChannelModel, act: (channel: Channel) => Promise<unknown>): Promise<string | undefined> {
  const channel = await connection.createChannel();
  channel.on("error", () => undefined); // the pending operation is rejected as well
  try {
    await act(channel);
    await channel.close();
    return undefined;
  } catch (err) {
    if (err instanceof Error && "code" in err && REFUSALS.includes(err.code)) return err.message;
    throw err;
  }
}
