import type { Socket } from "node:net";
import { connect, credentials } from "amqplib";
import type { Channel, ChannelModel, Connection, ConsumeMessage, Message, Options } from "amqplib";
import { Errors, Transporters, type Packet } from "moleculer";
import { reasonOf } from "./errors";
import { claimQueues, nodeOf, NODE_QUEUE } from "./amqp.queues";

/** Moleculer types this as any function. */
type Lost = Parameters<Transporters.Base["connect"]>[0];
type Outgoing = { balanced?: boolean; packet: Packet.Packet<Packet.PacketRequestPayload> };
/** amqplib's types hide the socket. */
type Link = ChannelModel & { connection: Connection & { stream: Socket } };

const REQUEST = "REQ";
/** Above its max_message_size, 16 MiB by default, RabbitMQ closes the sender's connection: the whole node would be unavailable. */
export const MAX_PACKET_BYTES = 4 * 1024 * 1024;
const HEARTBEAT_S = 5;
const CONNECT_TIMEOUT_MS = 5_000;
/** Maximum number of unacknowledged deliveries: one at a time would wait for a round trip each. */
const PREFETCH = 64;
/** How long a close may take; a new connection is opened only afterwards. */
const CLOSE_TIMEOUT_MS = 3_000;
/** A lost connection is replaced at once, but no more often than this; otherwise Moleculer retries every 5 s. */
const MIN_IMMEDIATE_RECONNECT_MS = 2_000;

/** Retryable. It has its own message and ignores the argument that its types require. */
const disconnected = () => new Errors.BrokerDisconnectedError("");

/** Not retryable: the same call would produce the same packet. Not one of our codes, so a client gets INTERNAL_ERROR. */
const tooLarge = (what: string, bytes: number) =>
  new Errors.MoleculerError(`${what} of ${bytes} bytes is too large for a message`, 500, "PACKET_TOO_LARGE", { bytes, MAX_PACKET_BYTES });

/**
 * Moleculer's AMQP transporter, with requests that run at most once, and without nodes that seem alive but receive nothing: a closed channel
 * closes its connection, since only a closed connection makes Moleculer reconnect. (If a request is running during a reconnect, Moleculer's
 * own transporter acknowledges it on the new channel. RabbitMQ closes that channel because of the unknown tag, and redelivers the request.
 * moleculer#692)
 */
export class AmqpTransporter extends Transporters.AMQP {
  declare connection: Link | null;
  declare channel: Channel | null;
  private attempts = 0;
  /** When a lost connection was last replaced at once, by `performance.now()`. */
  private replacedAt = -Infinity;
  /** With a memory or disk alarm RabbitMQ accepts no messages. It notifies connections that publish, as every node does with heartbeats. */
  isBlocked = false;
  private isStopping = false;

  /**
   * Tries each URL once.
   * @param lost called when the connection opened here was closed and can't be replaced at once
   * @throws if no connection could be opened
   */
  override async connect(lost: Lost = () => undefined): Promise<void> {
    const urls = [this.opts.url ?? ""].flat();
    for (let others = urls.length - 1; ; others--) {
      try {
        await this.connectTo(urls[this.attempts++ % urls.length] ?? "", lost);
        return;
      } catch (err) {
        if (others === 0) throw err;
      }
    }
  }

  private async connectTo(url: string, lost: Lost): Promise<void> {
    const address = url.replace(/\/\/.*@/, "//"); // keep the password out of the log
    try {
      const connection = await this.dial(url);
      const closed = this.watch(connection);
      try {
        await Promise.race([closed, this.open(connection)]);
      } catch (err) {
        // an unusable connection must not stay open beside the next one
        this.close(connection);
        await closed.catch(() => undefined);
        throw err;
      }
      this.logger.info(`AMQP is connected to ${address}.`);
      void closed.catch((reason: unknown) => this.replace(reason, lost));
    } catch (err) {
      if (this.isStopping) return;
      this.logger.error(`AMQP can't connect to ${address}: ${reasonOf(err)}`);
      throw err;
    }
  }

  private async replace(reason: unknown, lost: Lost): Promise<void> {
    if (this.isStopping) return;
    const now = performance.now();
    if (now - this.replacedAt > MIN_IMMEDIATE_RECONNECT_MS) {
      this.replacedAt = now;
      const isReplaced = this.connect(lost).then(() => true);
      if (await isReplaced.catch(() => false)) return; // the reason has been logged
    }
    (lost as (reason: unknown) => void)(reason);
  }

  /** Takes at most CLOSE_TIMEOUT_MS. RabbitMQ confirms the close of a channel only after everything that was sent on it. */
  override async disconnect(): Promise<void> {
    this.isStopping = true;
    const { connection } = this;
    if (!connection) return;
    this.destroyAfterTimeout(connection);
    const closed = new Promise((resolve) => connection.once("close", resolve));
    // amqplib's close() never settles if the connection dies meanwhile
    await Promise.race([super.disconnect(), closed]);
    this.close(connection);
    await closed;
  }

  /** Rejects if the packet can't be sent, so that the caller may retry. Moleculer's own method resolves, and the caller waits in vain. */
  override async send(topic: string, data: Buffer, { balanced, packet }: Outgoing): Promise<void> {
    const { channel } = this;
    const isRequest = packet.type === REQUEST;
    if (data.length > MAX_PACKET_BYTES) return this.refuse(packet, data.length);
    // a request buffered in this node's memory would run after RabbitMQ reads again, long after its caller timed out
    if (!channel || (isRequest && this.isBlocked)) throw disconnected();
    if (packet.type === "HEARTBEAT" && this.isBlocked) return; // they would pile up in memory
    const options: Options.Publish = { mandatory: isRequest || packet.type === "EVENT" };
    const { timeout } = packet.payload;
    // RabbitMQ closes the channel unless this is a 32-bit integer, and the time left of a nested call is fractional
    if (isRequest && timeout > 0) options.expiration = Math.min(Math.ceil(timeout), 0xffff_ffff);
    try {
      if (packet.type === "DISCONNECT") await this.letResponsesPass(channel);
      if (packet.target || balanced) channel.sendToQueue(topic, data, options);
      else channel.publish(topic, "", data, options);
    } catch (err) {
      // thrown while the channel is closing
      if (err instanceof Error && err.name === "IllegalOperationError") throw disconnected();
      throw err;
    }
  }

  /** Fails the one call instead of the connection: its caller gets an error at once. An event is lost, which is logged. */
  private async refuse({ type, target, payload: { id } }: Outgoing["packet"], bytes: number): Promise<void> {
    if (type !== "RES" || !target) {
      this.transit.removePendingRequest(id); // there will be no response
      throw tooLarge(`a packet of type ${type}`, bytes); // Moleculer logs it as an error, and rejects the call
    }
    this.logger.error(`A response of ${bytes} bytes to '${target}' is refused: the limit is ${MAX_PACKET_BYTES}.`);
    await this.transit.sendResponse(target, id, {}, {}, {}, tooLarge("the response", bytes));
  }

  /**
   * RabbitMQ returns a request or event whose queue no longer exists: its node has lost its connection, and counts as lost until its next
   * packet. Otherwise calls to it would time out until its missing heartbeats are noticed.
   */
  private onReturned({ fields: { routingKey } }: Message): void {
    const nodeID = nodeOf(routingKey, this.prefix);
    if (nodeID === undefined) return;
    this.transit.discoverer.remoteNodeDisconnected(nodeID, true);
    this.transit.removePendingRequestByNodeID(nodeID); // also if it was already known to be lost
  }

  /**
   * Moleculer keeps a rejected promise until the next attempt and fails every call in between with its reason, so the reason must be
   * retryable.
   */
  override makeSubscriptions(topics: Record<string, unknown>[]): Promise<void> {
    return super.makeSubscriptions(topics).catch((err: unknown) => {
      this.logger.error(`AMQP subscriptions failed: ${String(err)}`);
      throw disconnected();
    });
  }

  override _getQueueOptions(packetType: string, isShared = false): Record<string, unknown> {
    return isShared ? super._getQueueOptions(packetType, isShared) : { ...NODE_QUEUE };
  }

  /** Acknowledges on receipt and on the delivering channel: on a later one the tag is another delivery's, or unknown. */
  override _consumeCB(cmd: string, needAck = false): (msg: ConsumeMessage | null) => Promise<void> {
    const { channel } = this;
    return async (msg) => {
      try {
        if (msg === null) {
          this.logger.warn(`RabbitMQ cancelled the consumer of ${cmd} packets.`);
          if (this.connection) this.close(this.connection);
          return;
        }
        if (needAck) channel?.ack(msg);
        if (cmd === REQUEST && msg.fields.redelivered) {
          const { action, sender } = this.deserialize(cmd, msg.content).payload as Packet.PacketRequestPayload;
          this.logger.warn(`'${action}' request from '${sender}' is dropped: it was delivered before and may have run.`);
          return;
        }
        await this.receive(cmd, msg.content);
      } catch (err) {
        this.logger.error(`AMQP ${cmd} packet could not be handled.`, err);
      }
    };
  }

  private async dial(url: string): Promise<Link> {
    // Moleculer's retry timer outlives broker.stop(): without this it would reconnect a stopped node
    if (this.isStopping) throw disconnected();
    const socketOptions = { noDelay: true, timeout: CONNECT_TIMEOUT_MS };
    return (await connect(url, { ...socketOptions, ...loginOf(url), clientProperties: { connection_name: this.nodeID } })) as Link;
  }

  private async open(connection: Link): Promise<void> {
    if (this.isStopping) throw disconnected(); // stopped while connecting: disconnect() saw no connection to close
    this.connection = connection;
    this.bindings = [];
    await claimQueues(connection, this);
    const channel = await connection.createChannel();
    this.channel = channel;
    channel.on("return", (message: Message) => this.onReturned(message));
    channel.on("error", (err: Error) => this.logger.error(`AMQP channel: ${err.message}`)); // "close" follows
    channel.on("close", () => {
      this.down();
      // a closing connection closes its channels first: let it finish before closing it because of them
      if (!this.isStopping) setImmediate(() => this.close(connection));
    });
    await channel.prefetch(PREFETCH);
    const isReconnect = ++this.connectionCount > 1;
    if (isReconnect) await this.transit.makeSubscriptions(); // afterConnect() does it the first time
    // Moleculer's subscribe() silently does nothing if the channel has closed
    if (this.channel !== channel) throw disconnected();
    await this.onConnected(isReconnect);
  }

  /** @returns a promise that is rejected when either side has closed the connection */
  private watch(connection: Link): Promise<never> {
    connection.on("error", (err: Error) => this.logger.error(`AMQP connection: ${err.message}`)); // "close" follows
    connection.on("blocked", (reason: string) => {
      this.isBlocked = true;
      this.logger.warn(`RabbitMQ accepts no messages; requests are refused: ${reason}.`);
      // no node can respond before RabbitMQ has rechecked its memory, and by then the callers have timed out
      const nodeIDs = [...this.transit.pendingRequests.values()].map(({ nodeID }) => nodeID);
      for (const nodeID of new Set(nodeIDs)) this.transit.removePendingRequestByNodeID(nodeID);
    });
    connection.on("unblocked", () => {
      this.isBlocked = false;
      this.logger.info("RabbitMQ accepts messages again.");
      void this.transit.discoverer.sendHeartbeat(); // the other nodes may have missed some
    });
    return new Promise((_resolve, reject) => {
      connection.on("close", (reason: Error = new Error("closed by this node")) => {
        this.logger[this.isStopping ? "info" : "error"](`AMQP connection is closed: ${reason.message}`);
        this.destroyAfterTimeout(connection); // a silent peer leaves the socket half open
        this.connection = null;
        this.isBlocked = false;
        reject(reason);
        this.down();
      });
    });
  }

  private down(): void {
    const wasConnected = this.connected;
    this.channel = null;
    this.connected = false;
    // Moleculer itself sends this event only after a graceful disconnect
    if (wasConnected && !this.isStopping) void this.broker.broadcastLocal("$transporter.disconnected", { graceFul: false });
  }

  /**
   * A node that receives DISCONNECT rejects all its pending requests to this node. DISCONNECT has a separate queue and so may overtake
   * responses (31 of 480 in a trial). A round trip to RabbitMQ gives the responses a head start.
   */
  private async letResponsesPass(channel: Channel): Promise<void> {
    this.isStopping = true;
    if (this.connection) this.destroyAfterTimeout(this.connection); // a dead connection never responds
    await channel.prefetch(PREFETCH);
  }

  private close(connection: Link): void {
    connection.close().catch(() => undefined); // rejected if it is closed or closing already, which is fine
    this.destroyAfterTimeout(connection);
  }

  /** Destroys the socket if the peer has not confirmed the close after CLOSE_TIMEOUT_MS; amqplib would wait for ever. */
  private destroyAfterTimeout({ connection }: Link): void {
    const destroy = () => connection.stream.destroy(new Error("RabbitMQ did not confirm the close"));
    setTimeout(destroy, CLOSE_TIMEOUT_MS).unref();
  }
}

/**
 * @param urls amqp:// or amqps://, of the servers of one RabbitMQ cluster. Each node starts with a random one: its queues are on the server
 * it uses.
 */
export function amqpTransporter(...urls: string[]): AmqpTransporter {
  const first = Math.floor(Math.random() * urls.length);
  const url = [...urls.slice(first), ...urls.slice(0, first)].map(withHeartbeat);
  const transporter = new AmqpTransporter({ url, prefetch: PREFETCH });
  // The REPL's `info`, and whatever else prints a broker's options, would show the password.
  Object.defineProperty(transporter.opts, "url", { enumerable: false });
  return transporter;
}

/** Escapes in a URL are bytes of UTF-8, each of which amqplib itself would take for a character. Without a user it logs in as guest. */
function loginOf(url: string) {
  const { username, password } = new URL(url);
  if (username === "" && password === "") return {};
  return { credentials: credentials.plain(decodeURIComponent(username), decodeURIComponent(password)) };
}

/** A connection is closed after two silent intervals. RabbitMQ's default is 60 s; amqplib takes the interval from the URL only. */
function withHeartbeat(url: string): string {
  if (/[?&]heartbeat=/.test(url)) return url;
  return `${url}${url.includes("?") ? "&" : "?"}heartbeat=${HEARTBEAT_S}`;
}
