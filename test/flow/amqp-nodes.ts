import { randomUUID } from "node:crypto";
import type { Channel } from "amqplib";
import { ServiceBroker, type Context } from "moleculer";
import { amqpTransporter, type AmqpTransporter } from "../../broker/amqp.transporter";
import { amqpUrl, deleteLeftovers, withChannel } from "../../testkit/amqp";
import { FlakyProxy } from "../../testkit/flaky-proxy";
import { until } from "../../testkit/until";

export const RETRYABLE = { type: "BAD_GATEWAY", retryable: true };

/** A node that connects to RabbitMQ through one or more proxies of its own. */
export class Node {
  readonly transporter: AmqpTransporter;
  readonly broker: ServiceBroker;
  readonly warned: jest.SpyInstance;

  constructor(
    readonly namespace: string,
    readonly id: string,
    readonly line: FlakyProxy,
    ...others: FlakyProxy[]
  ) {
    this.transporter = amqpTransporter(line.url, ...others.map(({ url }) => url));
    this.broker = new ServiceBroker({
      namespace,
      nodeID: id,
      transporter: this.transporter,
      logger: false,
      requestTimeout: 10_000,
      registry: { stopDelay: 0 },
      transit: { serviceChangedDebounceTime: 0 } as object,
    });
    this.warned = jest.spyOn(this.transporter.logger, "warn");
  }

  queue(packet: "REQ" | "EVENT"): string {
    return `MOL-${this.namespace}.${packet}.${this.id}`;
  }

  /** Stops consuming. Its queues remain and fill up. */
  async stopConsuming(): Promise<void> {
    const { channel } = this.transporter as unknown as { channel: Channel & { consumers: Map<string, unknown> } };
    for (const tag of [...channel.consumers.keys()]) await channel.cancel(tag);
  }

  resumeConsuming(): Promise<void> {
    return this.transporter.subscribe("REQ", this.id);
  }

  get connected(): boolean {
    return this.transporter.connected;
  }

  breakSocket(): void {
    this.transporter.connection?.connection.stream.destroy(new Error("destroyed by the test"));
  }

  async untilReconnected(connections: number): Promise<void> {
    await until(`${this.id} is back`, () => this.line.accepted.length === connections && this.connected);
  }
}

/** Two nodes: node a calls the worker on node b. */
export class NodePair {
  readonly ran: string[] = [];
  readonly received: unknown[] = [];
  private readonly addedNodes: { node: Node; lines: FlakyProxy[] }[] = [];
  release: () => void = () => undefined;
  private readonly gate = new Promise<void>((resolve) => (this.release = resolve));

  private constructor(
    readonly url: string,
    readonly namespace: string,
    readonly a: Node,
    readonly b: Node,
  ) {
    a.broker.createService({
      name: "front",
      actions: { relay: (ctx: Context<object>) => ctx.call("worker.work", ctx.params) },
    });
    b.broker.createService({
      name: "worker",
      actions: {
        work: async ({ params }: Context<{ label: string; held?: boolean; size?: number }>) => {
          this.ran.push(params.label);
          if (params.held) await this.gate;
          return params.label.repeat(params.size ?? 1);
        },
      },
      events: { "thing.happened": (ctx: Context) => void this.received.push(ctx.params) },
    });
  }

  static async build(url: string): Promise<NodePair> {
    const id = randomUUID().slice(0, 8);
    const namespace = `test-${id}`;
    const a = new Node(namespace, `a-${id}`, await FlakyProxy.to(url));
    const b = new Node(namespace, `b-${id}`, await FlakyProxy.to(url));
    const pair = new NodePair(url, namespace, a, b);
    await Promise.all([a.broker.start(), b.broker.start()]);
    await a.broker.waitForServices("worker", 10_000, 20);
    return pair;
  }

  call(label: string, options: { held?: boolean; size?: number; timeout?: number } = {}): Promise<string> {
    const { timeout = 10_000, ...params } = options;
    return this.a.broker.call<string, object>("worker.work", { label, ...params }, { timeout });
  }

  /** Creates one more node without starting it. */
  async addNode(lines = 1, id = `c-${this.namespace}`): Promise<{ node: Node; lines: FlakyProxy[] }> {
    const [line, ...others] = await Promise.all(Array.from({ length: lines }, () => FlakyProxy.to(this.url)));
    const one = { node: new Node(this.namespace, id, line!, ...others), lines: [line!, ...others] };
    this.addedNodes.push(one);
    return one;
  }

  async stop(): Promise<void> {
    this.release();
    const nodes = [this.a, this.b, ...this.addedNodes.map(({ node }) => node)];
    await Promise.all(nodes.map(({ broker }) => broker.stop()));
    await Promise.all([this.a.line, this.b.line, ...this.addedNodes.flatMap(({ lines }) => lines)].map((line) => line.close()));
    await deleteLeftovers(this.url, this.namespace);
  }
}

/** Whether RabbitMQ has a queue. The queues are exclusive, so checking one from another connection gives 405. */
export async function queueExists(url: string, queue: string): Promise<boolean> {
  try {
    await withChannel(url, (channel) => channel.checkQueue(queue));
    return true;
  } catch (err) {
    if ((err as { code?: number }).code === 404) return false;
    expect(err).toMatchObject({ code: 405 });
    return true;
  }
}

/** A test that runs concurrently with others, since it mostly waits for a reconnect. */
export function testNodes(name: string, play: (pair: NodePair) => Promise<void>): void {
  test.concurrent(name, async () => {
    const url = await amqpUrl();
    if (!url) return;
    const pair = await NodePair.build(url);
    try {
      await play(pair);
    } finally {
      await pair.stop();
    }
  });
}
