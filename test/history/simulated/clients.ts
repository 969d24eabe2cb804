import type { Line } from "../../../contracts/orders";
import type { Operation } from "../../../testkit/history/operation";
import { Network } from "./network";
import { EPOCH, SimulatedShop } from "./shop";
import { follow } from "./streams";
import { listOrders, listProducts } from "./walks";

export interface SimulationOptions {
  /** Approximate number of recorded operations; operations in flight and the last quiet period come on top. */
  operations: number;
  seed: number;
  clients?: number;
  /** Operations between two quiet periods. */
  quietEvery?: number;
}

interface Placed {
  id: string;
  user: string;
  key: string;
  lines: Line[];
}

const PRODUCTS = 40;
/** Number of recent orders that clients keep reading, repeating and cancelling. */
const RECENT = 400;
/** Maximum attempts to send an order without a response. */
const ATTEMPTS = 6;

/** Clients of a simulated shop in virtual time. They order, repeat, cancel, change and read concurrently, through several gateways. */
class Clients {
  private readonly network: Network;
  private readonly shop: SimulatedShop;
  private readonly users: string[];
  private readonly recent: Placed[] = [];
  private readonly edits = new Map<string, number>();
  /** Orders with a cancel request that had no response. */
  private readonly doubtful = new Map<string, Placed>();
  private recorded = 0;
  private keys = 0;
  private active = 0;
  private nextQuiet: number;
  private lastQuiet = 0;

  constructor(
    private readonly options: Required<SimulationOptions>,
    private readonly emit: (operation: Operation) => void,
  ) {
    this.network = new Network(options.seed);
    this.shop = new SimulatedShop(this.network.clock, () => this.network.upTo(this.network.isFaulty() ? 4_000 : 40));
    this.users = Array.from({ length: Math.max(4, Math.min(200, Math.floor(options.operations / 5_000))) }, (_, n) => `u${n}`);
    this.nextQuiet = options.quietEvery;
  }

  run(): void {
    const { network, shop } = this;
    for (let n = 0; n < PRODUCTS; n++) {
      const user = this.someUser();
      const [quantity, price] = [n % 5 === 0 ? 30 : 1_000_000, 100 + n];
      network.request(
        () => ({ ok: shop.createProduct(user, quantity, price) }),
        ({ call, seen }) => this.record({ kind: "product.create", ...call, user, quantity, price, ...seen }),
      );
    }
    network.clock.after(100, () => this.resume());
    network.clock.run();
  }

  private record(operation: Operation): void {
    this.recorded++;
    this.emit(operation);
  }

  private someUser(): string {
    return this.network.pick(this.users) ?? "";
  }

  private someProduct(): string {
    return this.network.pick([...this.shop.products.keys()]) ?? "";
  }

  private sellerOf(product: string): string {
    return this.shop.products.get(product)?.seller ?? "";
  }

  /** Resumes all clients, which stop before the next quiet period. */
  private resume(): void {
    this.network.hasFaults = true;
    this.active = this.options.clients;
    for (let n = 0; n < this.options.clients; n++) this.step();
    this.awaitQuiet();
  }

  private step(): void {
    if (this.recorded >= this.nextQuiet) this.active--;
    else this.requestSomething(() => this.network.clock.after(this.network.upTo(20), () => this.step()));
  }

  private awaitQuiet(): void {
    if (this.active + this.network.late + this.shop.pending > 0) this.network.clock.after(100, () => this.awaitQuiet());
    else this.beQuiet();
  }

  /** Reads all products, the orders since the last quiet period and those that may be cancelled; then gives streams time to catch up. */
  private beQuiet(): void {
    const { clock } = this.network;
    this.network.hasFaults = false;
    const begin = clock.now;
    const since = this.lastQuiet === 0 ? 0 : EPOCH + this.lastQuiet;
    let reads = this.shop.products.size + this.users.length + this.doubtful.size;
    const done = () => {
      if (--reads === 0) clock.after(12_000, end);
    };
    const end = () => {
      this.record({ kind: "quiet", begin, end: clock.now });
      this.lastQuiet = begin;
      this.nextQuiet = Math.min(this.recorded + this.options.quietEvery, this.options.operations);
      if (this.recorded < this.options.operations) this.resume();
    };
    clock.after(1, () => {
      for (const product of this.shop.products.keys()) this.readProduct(product, done);
      for (const user of this.users) this.listOrders(user, { since }, done);
      for (const order of this.doubtful.values()) this.readOrder(order, order.user, done);
      this.doubtful.clear();
    });
  }

  private requestSomething(done: () => void): void {
    const { network } = this;
    const dice = network.random();
    const order = network.pick(this.recent);
    if (order === undefined || dice < 0.3)
      this.place({ user: this.someUser(), key: `k${this.keys++}`, lines: this.basket() }, ATTEMPTS, done);
    else if (dice < 0.35) this.place(order, ATTEMPTS, done);
    else if (dice < 0.36) this.place({ ...order, lines: [...order.lines, ...this.basket()] }, 1, done);
    else if (dice < 0.55) this.readOrder(order, order.user, done);
    else if (dice < 0.56) this.readOrder(order, this.someUser(), done);
    else if (dice < 0.62) this.cancel(order, done);
    else if (dice < 0.76) this.readProduct(this.someProduct(), done);
    else if (dice < 0.82) this.patch(this.someProduct(), done);
    else if (dice < 0.89) this.adjust(this.someProduct(), done);
    else if (dice < 0.93) this.listOrders(order.user, { pages: 1 + Math.floor(network.upTo(3)) }, done);
    else if (dice < 0.94) this.listProducts(done);
    else {
      const found = this.shop.orders.get(order.id);
      if (found) follow(network, order.user, found, network.random() < 0.1 ? 1 : undefined, (stream) => this.record(stream));
      done();
    }
  }

  private basket(): Line[] {
    const { network } = this;
    return Array.from({ length: 1 + Math.floor(network.upTo(3)) }, () => ({
      product_id: this.someProduct(),
      quantity: 1 + Math.floor(network.upTo(4)),
    }));
  }

  /** Sends an order until it has a response, at most `attempts` times. */
  private place(order: Omit<Placed, "id">, attempts: number, done: () => void): void {
    const { user, key, lines } = order;
    this.network.request(
      () => this.shop.place(user, key, lines),
      ({ call, seen: { seen: made } }) => {
        const response = made && {
          seen: { id: made.order.id, version: 1, status: "PENDING" as const, total: made.order.total, created: made.order.created },
          digest: made.order.id,
          replayed: made.replayed,
        };
        this.record({ kind: "order.place", ...call, user, key, lines, ...response });
        if (made && !made.replayed) this.remember({ id: made.order.id, user, key, lines });
        if (call.outcome !== "unknown" || attempts <= 1) done();
        else this.network.clock.after(this.network.upTo(300), () => this.place(order, attempts - 1, done));
      },
    );
  }

  private remember(order: Placed): void {
    if (this.recent.length < RECENT) this.recent.push(order);
    else this.recent[Math.floor(this.network.upTo(RECENT))] = order;
  }

  private readOrder(order: Placed, user: string, done: () => void): void {
    this.network.request(
      () => this.shop.readOrder(user, order.id),
      ({ call, seen }) => {
        this.record({ kind: "order.read", ...call, user, order: order.id, ...seen });
        done();
      },
    );
  }

  private cancel(order: Placed, done: () => void): void {
    this.network.request(
      () => this.shop.cancel(order.user, order.id),
      ({ call, seen }) => {
        this.record({ kind: "order.cancel", ...call, user: order.user, order: order.id, ...seen });
        if (call.outcome === "unknown") this.doubtful.set(order.id, order);
        done();
      },
    );
  }

  private readProduct(product: string, done: () => void): void {
    const user = this.someUser();
    this.network.request(
      () => this.shop.readProduct(product),
      ({ call, seen }) => {
        if (seen.seen) this.edits.set(product, seen.seen.edits);
        this.record({ kind: "product.read", ...call, user, product, ...seen });
        done();
      },
    );
  }

  /** Usually with If-Match of the ETag that any client read last. */
  private patch(product: string, done: () => void): void {
    const [user, price, known] = [this.sellerOf(product), 100 + Math.floor(this.network.upTo(900)), this.edits.get(product)];
    const ifMatch = this.network.random() < 0.8 ? known : undefined;
    this.network.request(
      () => this.shop.patch(product, price, ifMatch),
      ({ call, seen }) => {
        this.record({ kind: "product.patch", ...call, user, product, price, ...(ifMatch !== undefined && { if_match: ifMatch }), ...seen });
        done();
      },
    );
  }

  private adjust(product: string, done: () => void): void {
    const user = this.sellerOf(product);
    const delta = Math.floor(this.network.upTo(30)) - 12 || 1;
    this.network.request(
      () => this.shop.adjust(product, delta),
      ({ call, seen }) => {
        this.record({ kind: "product.adjust", ...call, user, product, delta, ...seen });
        done();
      },
    );
  }

  private listOrders(user: string, reach: { pages?: number; since?: number }, done: () => void): void {
    listOrders(this.network, this.shop, user, reach, (walk) => {
      this.record(walk);
      done();
    });
  }

  private listProducts(done: () => void): void {
    const seller = this.network.random() < 0.5 ? this.someUser() : undefined;
    listProducts(this.network, this.shop, this.someUser(), seller, (walk) => {
      this.record(walk);
      done();
    });
  }
}

/** Emits the history of a correct shop, in the order in which calls end; deterministic for a seed. */
export function simulate(options: SimulationOptions, emit: (operation: Operation) => void): void {
  const { clients = 32, quietEvery = Math.max(1_000, Math.ceil(options.operations / 50)) } = options;
  new Clients({ ...options, clients, quietEvery }, emit).run();
}
