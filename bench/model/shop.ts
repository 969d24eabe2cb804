import { Batcher, Machine, newProcess, type Process } from "./machine";

/** µs of CPU: once for each batch, and for each item in it. */
export interface Cost {
  batch: number;
  item: number;
}

/** What one kind of request costs each component, and how long it waits for anything but a core (µs, once a batch). */
export interface Costs {
  generator: Cost;
  gateway: Cost;
  rabbitmq: Cost;
  products: Cost;
  orders: Cost;
  postgres: Cost;
  latency: number;
  /** The part of orders, products, RabbitMQ and PostgreSQL that is done after the answer. */
  later: number;
  /** Batches that a gateway has under way, as mixins/batching.ts has it. */
  underWay: number;
}

export interface Layout {
  cores: number;
  gateways: number;
  orders: number;
  products: number;
  connections: number;
  /** The load comes from other machines. */
  loadElsewhere?: boolean;
}

export interface Prediction {
  /** Requests a second. */
  rate: number;
  meanBatch: number;
  /** Share of one core that the busiest node of each service uses. */
  busiest: Record<"gateway" | "orders" | "products", number>;
}

const SECOND = 1_000_000;

/** A closed loop of connections against the shop, in virtual time. GET: orders cost nothing. */
export function simulate(costs: Costs, layout: Layout, seconds = 3): Prediction {
  const machine = new Machine(layout.cores);
  const nodes = (count: number): Process[] => Array.from({ length: count }, newProcess);
  const [gateways, orders, products] = [nodes(layout.gateways), nodes(layout.orders), nodes(layout.products)];
  const generator = newProcess();
  const turns = new Map<readonly Process[], number>();
  const next = (of: readonly Process[]): Process | undefined => {
    const turn = turns.get(of) ?? 0;
    turns.set(of, turn + 1);
    return of[turn % of.length];
  };
  const price = ({ batch, item }: Cost, size: number, part: number): number => (batch + item * size) * part;

  /** The components that a batch passes on its way, now or after the answer. */
  const pass = (size: number, part: number, done: () => void): void => {
    const orderNode = next(orders);
    const steps: [Process | undefined, Cost][] = [
      [undefined, costs.rabbitmq],
      [orderNode, costs.orders],
      [next(products), costs.products],
      [undefined, costs.postgres],
    ];
    const step = (n: number): void => {
      const [process, cost] = steps[n] ?? [];
      if (cost === undefined) done();
      else machine.work(process, price(cost, size, part), () => step(n + 1));
    };
    step(0);
  };

  const batchers = gateways.map(
    (gateway) =>
      new Batcher((size, done) => {
        machine.work(gateway, costs.gateway.batch, () =>
          pass(size, 1 - costs.later, () =>
            machine.after(costs.latency, () => {
              done();
              if (costs.later > 0) pass(size, costs.later, () => undefined);
            }),
          ),
        );
      }, costs.underWay),
  );

  let finished = 0;
  const send = (connection: number): void => {
    const answered = (): void => {
      if (machine.now > SECOND) finished++;
      send(connection);
    };
    const gateway = gateways[connection % gateways.length];
    const batcher = batchers[connection % gateways.length];
    const half = costs.gateway.item / 2;
    const arrive = (): void => machine.work(gateway, half, () => batcher?.add(() => machine.work(gateway, half, answered)));
    if (layout.loadElsewhere) arrive();
    else machine.work(generator, costs.generator.batch + costs.generator.item, arrive);
  };
  for (let connection = 0; connection < layout.connections; connection++) send(connection);
  machine.run((1 + seconds) * SECOND); // the first second warms up

  const share = (of: readonly Process[]): number => Math.max(0, ...of.map(({ used }) => used)) / ((1 + seconds) * SECOND);
  return {
    rate: finished / seconds,
    meanBatch: batchers.reduce((sum, { meanSize }) => sum + meanSize, 0) / batchers.length,
    busiest: { gateway: share(gateways), orders: share(orders), products: share(products) },
  };
}
