import { Client as Postgres } from "pg";
import { ADMIN } from "../../testkit/admin";
import type { Recorder } from "../../testkit/history/recorder";
import { startShop, urlOf, type Shop } from "../../testkit/shop";
import { until } from "../../testkit/until";
import { EventInterceptor } from "./interference";
import { RecordedUser } from "./recorded-user";

/** Two gateways, and a separate node for products and for orders. */
const NODES = [["api", "users"], ["api"], ["products"], ["orders"]] as const;
/** Long enough that no row is republished during a scenario's race. */
const RETRY_MS = 5_000;
/** More than enough to republish a lost event. Limited, since a mutant may never settle everything. */
const QUIET_MS = 4 * RETRY_MS;

/** A shop of several nodes in this process. A scenario can delay its events and statements. */
export class ScenarioShop {
  private constructor(
    readonly shop: Shop,
    readonly events: EventInterceptor,
    private readonly gateways: readonly string[],
    private readonly orders: Postgres,
  ) {}

  static async start(): Promise<ScenarioShop> {
    const events = new EventInterceptor();
    const shop = await startShop({
      nodes: NODES,
      env: { OUTBOX_RETRY_MS: String(RETRY_MS), OUTBOX_RETRY_MAX_MS: String(RETRY_MS) },
      broker: { transporter: "Fake", middlewares: [events.middleware] },
      checksResults: false,
    });
    const gateways = shop.nodes.filter((node) => node.services.some(({ name }) => name === "api")).map(urlOf);
    const orders = new Postgres({ connectionString: shop.databases.orders.url });
    await orders.connect();
    return new ScenarioShop(shop, events, gateways, orders);
  }

  /** Registers a new user. */
  async signUp(history: Recorder): Promise<RecordedUser> {
    const client = this.shop.client();
    await client.signUp();
    return new RecordedUser(this.gateways, history, client.token ?? "");
  }

  /** Replays every parked outbox row, as an admin does. */
  async replayParked(): Promise<void> {
    const admin = await this.shop.client().login(ADMIN.email, ADMIN.password);
    const { body } = await admin.get<{ items: { id: number }[] }>("/admin/outbox?state=parked");
    for (const { id } of body.items) await admin.post(`/admin/outbox/${id}/replay`);
  }

  /** Emits an event as another node would. */
  emit(event: string, orders: readonly object[]): Promise<void> {
    return this.shop.node("orders").emit(event, { orders });
  }

  /** Whether a statement waits for a lock, that is, a guard has stopped it. */
  async isBlocked(): Promise<boolean> {
    const { rowCount } = await this.orders.query("select from pg_stat_activity where wait_event_type = 'Lock' and datname = any($1)", [
      Object.values(this.shop.databases).map(({ url }) => new URL(url).pathname.slice(1)),
    ]);
    return (rowCount ?? 0) > 0;
  }

  /** Waits until no outbox row is pending. @returns false on timeout, which a correct shop never reaches */
  async becomesQuiet(): Promise<boolean> {
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
