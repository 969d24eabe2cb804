import { Client as Postgres } from "pg";
import type { Recorder } from "../history/recorder";
import { until } from "../support/amqp";
import { ADMIN, startShop, urlOf, type Shop } from "../support/shop";
import { Wire } from "./interference";
import { Person } from "./person";

/** Two gateways, and each service on a node of its own. */
const NODES = [["api", "users"], ["api"], ["products"], ["orders"]] as const;
/** No row is emitted again while a scenario has a race under way. */
const RETRY_MS = 5_000;
/** What a lost event needs to come again, and more: a mutant may never get quiet. */
const QUIET_MS = 4 * RETRY_MS;

/** A shop of several nodes in this process, whose events and statements a scenario may hold. */
export class World {
  private constructor(
    readonly shop: Shop,
    readonly wire: Wire,
    private readonly gateways: readonly string[],
    private readonly orders: Postgres,
  ) {}

  static async start(): Promise<World> {
    const wire = new Wire();
    const shop = await startShop({
      nodes: NODES,
      env: { OUTBOX_RETRY_MS: String(RETRY_MS), OUTBOX_RETRY_MAX_MS: String(RETRY_MS) },
      broker: { transporter: "Fake", middlewares: [wire.middleware] },
      checksResults: false,
    });
    const gateways = shop.nodes.filter((node) => node.services.some(({ name }) => name === "api")).map(urlOf);
    const orders = new Postgres({ connectionString: shop.databases.orders.url });
    await orders.connect();
    return new World(shop, wire, gateways, orders);
  }

  /** Somebody new. */
  async person(history: Recorder): Promise<Person> {
    const client = this.shop.client();
    await client.signUp();
    return new Person(this.gateways, history, client.token ?? "");
  }

  /** Lets every parked outbox row try again, as an admin does. */
  async replayParked(): Promise<void> {
    const admin = await this.shop.client().login(ADMIN.email, ADMIN.password);
    const { body } = await admin.get<{ items: { id: number }[] }>("/admin/outbox?state=parked");
    for (const { id } of body.items) await admin.post(`/admin/outbox/${id}/replay`);
  }

  /** Emits an event as one more node would. */
  emit(event: string, orders: readonly object[]): Promise<void> {
    return this.shop.node("orders").emit(event, { orders });
  }

  /** Whether a statement waits for a lock: then a guard has stopped it. */
  async isBlocked(): Promise<boolean> {
    const { rowCount } = await this.orders.query("select from pg_stat_activity where wait_event_type = 'Lock' and datname = any($1)", [
      Object.values(this.shop.databases).map(({ url }) => new URL(url).pathname.slice(1)),
    ]);
    return (rowCount ?? 0) > 0;
  }

  /** @returns whether no outbox row is pending any more, within a time that is enough for a sound shop */
  async getsQuiet(): Promise<boolean> {
    const count = async (): Promise<number> =>
      (await this.orders.query<{ n: number }>("select count(*)::int as n from outbox where state = 'PENDING'")).rows[0]?.n ?? 0;
    return until("no outbox row is pending", async () => (await count()) === 0, QUIET_MS).then(
      () => true,
      () => false,
    );
  }

  async stop(): Promise<void> {
    await this.orders.end();
    await this.shop.stop();
  }
}
