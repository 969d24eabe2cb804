import fc from "fast-check";
import type { Context, Middleware } from "moleculer";
import { asSystem, call } from "../../broker/contract";
import { audit } from "../../contracts/orders";
import { adjust, create } from "../../contracts/products";
import type { WithDatabase } from "../../mixins/database.mixin";
import type { WithOutbox } from "../../mixins/outbox.mixin";
import { adjustStock } from "../../services/products/products.store";
import { until } from "../../testkit/until";
import type { Client } from "../../testkit/client";
import { testId } from "../../testkit/ids";
import { startShop, type Shop } from "../../testkit/shop";

const FAULTS = ["pass", "drop", "twice", "late"] as const;
type Fault = (typeof FAULTS)[number];
type Deliver = () => Promise<void>;

/** A transport between the services that loses, duplicates and reorders events by a plan; after that it delivers everything. */
class BadTransport {
  readonly seen = { pass: 0, drop: 0, twice: 0, late: 0 };
  /** The faults of the next deliveries; later ones pass. */
  plan: Fault[] = [];
  /** Whether an event is lost regardless of the plan. */
  loses: (event: string) => boolean = () => false;
  private held: { after: number; deliver: Deliver }[] = [];

  readonly middleware: Middleware = {
    name: "BadTransport",
    localEvent: (next, event) => {
      const name = String(event.name);
      if (!["order.created", "order.cancelled", "stock.settled"].includes(name)) return next;
      const deliver = next as (ctx: Context) => Promise<void>;
      return (ctx: Context) => this.carry(name, () => deliver(ctx));
    },
  };

  private async carry(name: string, deliver: Deliver): Promise<void> {
    const fault = this.loses(name) ? "drop" : (this.plan.shift() ?? "pass");
    this.seen[fault]++;
    if (fault === "late") this.held.push({ after: 1 + (this.seen.late % 5), deliver });
    else if (fault !== "drop") await Promise.all(Array.from({ length: fault === "twice" ? 2 : 1 }, deliver));
    // A late event is overtaken by one to five others.
    const due = this.held.filter((one) => --one.after < 0);
    this.held = this.held.filter((one) => one.after >= 0);
    for (const one of due) await one.deliver();
  }

  /** Delivers the events that are still held, newest first. */
  async deliverLate(): Promise<void> {
    for (const one of this.held.splice(0).reverse()) await one.deliver();
  }
}

const SPLIT = [["api", "users"], ["products"], ["products"], ["orders"], ["orders"]] as const;
type Orders = WithDatabase & WithOutbox;
const ordersOf = (shop: Shop): Orders[] =>
  shop.nodes.flatMap((node) => (node.getLocalService("orders") as unknown as Orders | undefined) ?? []);
const pending = async (shop: Shop): Promise<number> => {
  const [row] = await ordersOf(shop)[0]!.db.query<{ n: number }>("select count(*) as n from outbox where state = 'PENDING'");
  return row!.n;
};

interface Command {
  what: "order" | "cancel" | "adjust";
  lines: { product: number; quantity: number }[];
  /** Selects one of the client's own orders. */
  which: number;
  delta: number;
}
const PRODUCTS = 3;
const command: fc.Arbitrary<Command> = fc.record({
  what: fc.constantFrom("order", "order", "order", "cancel", "cancel", "adjust"),
  lines: fc.uniqueArray(fc.record({ product: fc.nat(PRODUCTS - 1), quantity: fc.integer({ min: 1, max: 3 }) }), {
    minLength: 1,
    selector: (line) => line.product,
  }),
  which: fc.nat(),
  delta: fc.integer({ min: -4, max: 6 }).filter((units) => units !== 0),
});

/** Runs one client's commands one after the other. @returns its accepted orders, and the units that it added to each product */
async function shopping(client: Client, products: string[], commands: Command[]) {
  const orders: string[] = [];
  const added = products.map(() => 0);
  for (const { what, lines, which, delta } of commands) {
    if (what === "order") {
      const items = lines.map((line) => ({ product_id: products[line.product], quantity: line.quantity }));
      const { status, body } = await client.post("/orders", { items });
      expect([201, 409]).toContain(status);
      if (status === 201) orders.push(String(body["id"]));
    } else if (what === "cancel" && orders.length > 0) {
      expect([200, 409]).toContain((await client.post(`/orders/${orders[which % orders.length]!}/cancel`)).status);
    } else if (what === "adjust") {
      const i = which % products.length;
      const { status } = await client.post(`/products/${products[i]!}/stock`, { delta });
      expect([200, 409]).toContain(status);
      if (status === 200) added[i]! += delta;
    }
  }
  return { orders, added };
}

describe("events that are lost, duplicated and reordered between five nodes", () => {
  const transport = new BadTransport();
  let shop: Shop;
  let clients: Client[];
  beforeAll(async () => {
    const env = { OUTBOX_RETRY_MS: "50", OUTBOX_RETRY_MAX_MS: "100" };
    shop = await startShop({ nodes: SPLIT, env, broker: { transporter: "Fake", middlewares: [transport.middleware] } });
    // Three clients of the same seller, so that each may adjust the stock.
    const seller = shop.client();
    await seller.signUp();
    clients = [seller, ...[1, 2].map(() => Object.assign(shop.client(), { token: seller.token }))];
  });
  afterAll(() => shop.stop());

  it("in the end every accepted order is decided, the stock adds up and the audit finds nothing", async () => {
    const stock = fc.array(fc.nat(12), { minLength: PRODUCTS, maxLength: PRODUCTS });
    const plan = fc.array(fc.constantFrom(...FAULTS), { minLength: 20, maxLength: 60 });
    const work = fc.tuple(...Array.from({ length: 3 }, () => fc.array(command, { minLength: 3, maxLength: 10 })));
    await fc.assert(
      fc.asyncProperty(stock, plan, work, async (quantities, faults, commands) => {
        const products: string[] = [];
        for (const quantity of quantities) products.push(await clients[0]!.createProduct({ quantity }));
        transport.plan = [...faults];
        const done = await Promise.all(commands.map((own, i) => shopping(clients[i]!, products, own)));
        await until("every outbox row is settled", async () => {
          for (const orders of ordersOf(shop)) orders.relay(); // earlier than the periodic sweep
          return (await pending(shop)) === 0;
        });
        await transport.deliverLate(); // stale by now, so nothing may change

        const ids = done.flatMap(({ orders }) => orders);
        const final = await Promise.all(ids.map(async (id) => (await clients[0]!.get(`/orders/${id}`)).body));
        const sold = products.map(() => 0);
        for (const order of final) {
          expect(["CONFIRMED", "REJECTED", "CANCELLED"]).toContain(order["status"]);
          if (order["status"] !== "CONFIRMED") continue;
          for (const item of order["items"]) sold[products.indexOf(String(item.product_id))]! += Number(item.quantity);
        }
        const expected = products.map((_, i) => quantities[i]! + done.reduce((sum, d) => sum + d.added[i]!, 0) - sold[i]!);
        expect(await Promise.all(products.map(clients[0]!.quantityOf))).toEqual(expected);
        const report = await call(shop.node("api"), audit, {}, asSystem());
        const failed = report.checks.filter((check) => !check.ok);
        expect({ ...report, failed }).toMatchObject({ failed: [], ok: true, in_flight: 0, parked: 0 });
      }),
      { numRuns: 30, endOnFailure: true },
    );
    // Each kind of fault occurred.
    for (const fault of FAULTS) expect(transport.seen[fault]).toBeGreaterThan(5);
  });
});

it("an adjustment that finds too little stock gets INSUFFICIENT_STOCK, even if units arrive right after the check", async () => {
  const shop = await startShop({ nodes: [["products"]] });
  const { db } = shop.node("products").getLocalService("products") as unknown as WithDatabase;
  const meta = { user: { id: testId(1), role: "user" as const } };
  const { id } = await call(shop.node("products"), create, { name: "Lamp", price: 1, quantity: 2 }, { meta });
  const { query } = db;
  db.query = async (text, values) => {
    const rows = await query(text, values);
    if (!text.includes("'ADJUSTMENT'")) return rows as never[];
    db.query = query;
    await adjustStock(query, { id, tags: undefined, delta: 5, reason: "delivered", max: 1_000 });
    return rows as never[];
  };
  const taken = call(shop.node("products"), adjust, { id, delta: -3 }, { meta }).finally(() => shop.stop());
  await expect(taken).rejects.toMatchObject({ type: "INSUFFICIENT_STOCK" });
});

describe("without republishing", () => {
  const transport = new BadTransport();
  let shop: Shop;
  beforeAll(async () => {
    const env = { OUTBOX_RETRY_MS: "3600000", OUTBOX_RETRY_MAX_MS: "3600000" };
    shop = await startShop({ nodes: SPLIT, env, broker: { transporter: "Fake", middlewares: [transport.middleware] } });
  });
  afterAll(() => shop.stop());

  it.each(["order.created", "stock.settled"])(
    "an order whose %s is lost stays PENDING, and the audit counts it as in flight",
    async (lost) => {
      const client = shop.client();
      await client.signUp();
      const product = await client.createProduct({ quantity: 10 });
      transport.loses = (event) => event === lost;
      const before = transport.seen.drop;
      const waiting = await pending(shop);
      const id = String((await client.order(product, 1)).body["id"]);
      await until("the event is lost", () => transport.seen.drop > before);
      transport.loses = () => false;
      const other = String((await client.order(product, 1)).body["id"]);
      expect((await client.decided(other))["status"]).toBe("CONFIRMED");
      expect((await client.get(`/orders/${id}`)).body["status"]).toBe("PENDING");
      expect(await pending(shop)).toBe(waiting + 1);
      expect(await call(shop.node("api"), audit, {}, asSystem())).toMatchObject({ ok: true, in_flight: waiting + 1 });
    },
  );
});
