import path from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { SERVICES } from "../../config";
import { RabbitMQ, type Place } from "../../testkit/rabbitmq";
import { eventually } from "../../testkit/until";
import { ALL_PARTS, allOrRandomOne, untilAccepting, type Chaos, type Fault } from "./fault";
import { Network } from "./network";

/*
 * A RabbitMQ cluster of three that loses brokers and links, and a broker that lacks memory or disk space.
 */

const SILENCE_MS = 15_000;
const LOOPBACK: readonly Place[] = Array.from({ length: 3 }, () => ({ address: "127.0.0.1" }));
/** As operators of three brokers set it: a minority partition stops, and recovers automatically. */
const PAUSE_MINORITY = "cluster_partition_handling = pause_minority\n";

/** A cluster of three brokers for the system's nodes during a fault. */
class Brokers {
  private constructor(
    private readonly chaos: Chaos,
    readonly all: readonly RabbitMQ[],
  ) {}

  static async start(chaos: Chaos, places = LOOPBACK, config = ""): Promise<Brokers> {
    const folder = path.join(chaos.system.folder, "rabbitmq", `cluster-${Date.now()}`);
    const all = await RabbitMQ.startCluster(folder, places, PAUSE_MINORITY + config);
    for (const broker of all) chaos.system.addedParts.add(broker);
    return new Brokers(chaos, all);
  }

  broker(n: number): RabbitMQ {
    const broker = this.all[n % this.all.length];
    if (broker === undefined) throw new Error("there is no broker");
    return broker;
  }

  /** Points each node's proxy at one broker. @param of the number of the nth node's broker */
  async connectEachToOne(of: (n: number) => number): Promise<void> {
    const { system } = this.chaos;
    system.running().forEach(({ amqp }, n) => amqp.retarget(this.broker(of(n)).url));
    for (const line of system.amqpProxies) line.reset();
    await untilAccepting(this.chaos);
  }

  /** Moves proxies from one broker to another, as a load balancer does after a failed health check. Open connections stay. */
  divert(from: RabbitMQ, to: RabbitMQ): void {
    for (const line of this.chaos.system.amqpProxies) if (line.leadsTo(from.url)) line.retarget(to.url);
  }

  /** Restarts the nodes with a list of all brokers. */
  async connectToList(): Promise<void> {
    const { system } = this.chaos;
    const env = { TRANSPORTER: this.all.map(({ url }) => url).join() };
    await Promise.all(SERVICES.map((service) => system.relaunch(service, { env })));
    await untilAccepting(this.chaos);
  }
}

/** Moves the nodes back to the system's own RabbitMQ. */
async function returnToOwnBroker({ system }: Chaos): Promise<void> {
  for (const { amqp } of system.running()) amqp.retarget(system.rabbit.url);
  await Promise.all(SERVICES.map((service) => system.relaunch(service)));
  await system.stopAddedParts();
}

/** Does something under load. The same processes must respond again within 15 s. */
async function withoutRestart(chaos: Chaos, what: string, act: () => Promise<void>): Promise<void> {
  const { system, load, expect } = chaos;
  const pids = system.running().map(({ process }) => process.pid);
  load.openWindow();
  await act();
  await untilAccepting(chaos);
  const { silence } = load.window;
  expect(silence <= SILENCE_MS, `${what}: no response for ${silence} ms`);
  const left = system.running().map(({ process }) => process.pid);
  expect(pids.join() === left.join(), `${what}: a node has exited`);
}

interface NodeState {
  blocked: number | undefined;
  ready: number;
}

/** Reads a node's state from its OPS_PORT. */
async function readState(opsPort: number): Promise<NodeState> {
  const [page, ready] = await Promise.all(["metrics", "ready"].map((name) => fetch(`http://127.0.0.1:${opsPort}/${name}`)));
  const value = /^shop_transporter_blocked (\d)$/m.exec((await page?.text()) ?? "")?.[1];
  return { blocked: value === undefined ? undefined : Number(value), ready: ready?.status ?? 0 };
}

/** Requests products repeatedly. @returns how long each 503 took, ms, sorted; -1 for any other response */
async function floodProducts(url: string, ms: number): Promise<number[]> {
  const took: number[] = [];
  const end = Date.now() + ms;
  const client = async (): Promise<void> => {
    while (Date.now() < end) {
      const since = performance.now();
      const response = await fetch(`${url}/products`, { signal: AbortSignal.timeout(8_000) });
      await response.text();
      took.push(response.status === 503 ? performance.now() - since : -1);
      await pause(20);
    }
  };
  await Promise.all(Array.from({ length: 8 }, client));
  return took.sort((a, b) => a - b);
}

async function alarm(chaos: Chaos, what: string, on: string[], off: string[]): Promise<void> {
  const { system, expect, quick } = chaos;
  const readStates = () => Promise.all(system.running().map(({ opsPort }) => readState(opsPort)));
  const memory = () => system.running().reduce((sum, { process }) => sum + process.memoryMb, 0);
  const gateway = `http://127.0.0.1:${system.running("api")[0]?.port ?? 0}`;
  try {
    await system.rabbit.ctl(...on);
    // idle nodes notice as well, since each sends heartbeats
    const know = async () => (await readStates()).every(({ blocked, ready }) => blocked === 1 && ready === 503);
    await eventually(`every node has noticed the ${what}`, know, 8_000, 100);
    const health = await fetch(`${gateway}/health`);
    expect(health.status === 503 && (await health.text()).includes("RabbitMQ accepts no messages"), `${what}: /health does not report it`);
    const before = memory();
    const took = await floodProducts(gateway, quick ? 5_000 : 20_000);
    const grown = memory() - before;
    const [median = -1, slowest = -1] = [took[Math.floor(took.length / 2)], took.at(-1)];
    expect(took[0] !== -1, `${what}: a request was not refused with 503`);
    expect(median < 100 && slowest < 1_000, `${what}: refusals took ${median.toFixed(0)} ms, the slowest ${slowest.toFixed(0)} ms`);
    expect(grown < 100, `${what}: the nodes grew by ${grown.toFixed(0)} MB`);
  } finally {
    await system.rabbit.ctl(...off);
  }
  const end = Date.now();
  await eventually(
    "every node is ready",
    async () => (await readStates()).every(({ blocked, ready }) => blocked === 0 && ready === 200),
    10_000,
    50,
  );
  await untilAccepting(chaos);
  expect(Date.now() - end < 5_000, `${what}: orders were accepted ${Date.now() - end} ms after its end`);
}

export const BROKER_FAULTS: readonly Fault[] = [
  {
    number: 35,
    name: "a broker of three killed for good",
    withinMs: 15_000,
    random: ALL_PARTS,
    async inject(chaos) {
      const brokers = await Brokers.start(chaos);
      await brokers.connectEachToOne(() => 0); // all queues are on the broker that is killed
      await withoutRestart(chaos, "one address", async () => {
        await brokers.broker(0).kill();
        await pause(1_000); // until a health check fails
        brokers.divert(brokers.broker(0), brokers.broker(1));
      });
      await brokers.broker(0).launch();
      await brokers.connectToList();
      await withoutRestart(chaos, "a list of URLs", () => brokers.broker(1).kill());
    },
    after: returnToOwnBroker,
  },
  {
    number: 36,
    name: "rolling restart of three brokers",
    withinMs: 15_000,
    random: ALL_PARTS,
    async inject(chaos) {
      const brokers = await Brokers.start(chaos);
      await brokers.connectEachToOne((n) => n);
      for (const [n, broker] of allOrRandomOne(chaos, [...brokers.all.entries()]))
        await withoutRestart(chaos, `restart of broker ${n + 1}`, async () => {
          const stopped = broker.shutDown();
          await pause(2_000);
          brokers.divert(broker, brokers.broker(n + 1));
          await stopped;
          await broker.launch();
          await eventually("the cluster is whole", async () => (await broker.countRunning()) === 3, 30_000, 500);
        });
    },
    after: returnToOwnBroker,
  },
  {
    number: 37,
    name: "partition between brokers, and of nodes from their broker",
    withinMs: 30_000,
    random: ALL_PARTS,
    impossible: () => Network.impossible(),
    async inject(chaos) {
      const { system } = chaos;
      const network = Network.start(3);
      system.addedParts.add(network);
      const brokers = await Brokers.start(chaos, network.places, "net_ticktime = 8\n");
      const isWhole = async (): Promise<boolean> =>
        (await Promise.all(brokers.all.map((one) => one.countRunning()))).every((count) => count === 3);
      const areParted = async (n: number): Promise<void> => {
        const count = await brokers.broker(n).countRunning();
        chaos.expect(count === 2, `${count} brokers see each other, so there was no partition`);
      };

      const ways = [
        async () => {
          await brokers.connectEachToOne((n) => n);
          const [orders] = system.running("orders");
          orders?.amqp.freeze(); // neither side is notified
          await pause(25_000);
          orders?.amqp.thaw();
        },
        async () => {
          await brokers.connectToList();
          network.isolate(0);
          await pause(25_000);
          await areParted(2);
          network.rejoin(0);
        },
        async () => {
          await brokers.connectToList();
          network.unplug(1);
          await pause(25_000);
          await areParted(0);
          network.plug(1);
        },
      ];
      for (const part of allOrRandomOne(chaos, ways)) {
        await part();
        await eventually("the cluster is whole", isWhole, 60_000, 1_000);
        await untilAccepting(chaos);
      }
    },
    after: returnToOwnBroker,
  },
  {
    number: 38,
    name: "memory alarm and disk alarm",
    withinMs: 10_000,
    random: ALL_PARTS,
    async inject(chaos) {
      await alarm(chaos, "memory alarm", ["set_vm_memory_high_watermark", "0.0001"], ["set_vm_memory_high_watermark", "0.4"]);
      await alarm(chaos, "disk alarm", ["set_disk_free_limit", "999999GB"], ["set_disk_free_limit", "50MB"]);
    },
  },
];
