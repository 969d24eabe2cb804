import { setTimeout as pause } from "node:timers/promises";
import { digestOf } from "../../contracts/lines";
import { orderCreated } from "../../contracts/orders";
import { stockSettled } from "../../contracts/products";
import { insertOrders } from "../../testkit/load/insert-orders";
import type { OrderRecord } from "../../testkit/load/load";
import type { SystemNode } from "../../testkit/system/node";
import { eventually } from "../../testkit/until";
import {
  anyProduct,
  becomes,
  clockOffset,
  cutCommits,
  die,
  diesAt,
  NEW_ORDER,
  orderMany,
  queryValue,
  statusOf,
  TWO_OF_EACH,
  untilAccepting,
  type Fault,
} from "./fault";
import { BROKER_FAULTS } from "./faults.brokers";
import { DATABASE_FAULTS } from "./faults.databases";
import { DISK_FAULTS } from "./faults.disk";
import { FAILOVER_FAULTS } from "./faults.failover";
import { NEIGHBOUR_FAULTS } from "./faults.neighbours";
import { RELAY_FAULTS } from "./faults.relay";
import { RESTORE_FAULTS } from "./faults.restores";
import { UPGRADE_FAULTS } from "./faults.upgrades";
import { killSingleNode } from "./single-node";

let tombstones: OrderRecord[] = [];
let lastUnit = "";

const FIRST_THIRTY: readonly Fault[] = [
  { number: 1, name: "orders dies before commit", random: ["orders"], inject: diesAt("orders", die("before query", NEW_ORDER)) },
  {
    number: 2,
    name: "orders dies after commit, before emitting",
    nodes: { orders: 2 },
    random: ["orders"],
    quick: true,
    async inject(chaos) {
      const { system } = chaos;
      const slot = system.slots.find((one) => one.process === system.node("orders"));
      await slot?.process?.arm(die("after query", NEW_ORDER));
      await slot?.process?.exited(40_000);
      const dead = Date.now();
      const left = () =>
        system.sql("orders", "select 1 from outbox where state = 'PENDING' and created_at < to_timestamp($1) limit 1", [dead / 1000]);
      await eventually("the other node relays what the dead one left", async () => (await left()).length === 0, 40_000);
      if (slot) await system.launch(slot);
    },
  },
  {
    number: 3,
    name: "orders dies after emitting, before the reply",
    random: ["orders"],
    quick: true,
    // holds the reply until the relay's sweep has published
    inject: diesAt(
      "orders",
      { point: "after query", match: NEW_ORDER, does: "delay", ms: 1_800 },
      { point: "after emit", match: orderCreated.name, does: "delay", times: 1 },
      die("after emit", orderCreated.name),
    ),
  },
  {
    number: 4,
    name: "products dies inside its transaction",
    random: ["products"],
    quick: true,
    inject: diesAt("products", die("before query", "stock_movements (product_id, order_id")),
  },
  {
    number: 5,
    name: "products dies after commit, before replying",
    random: ["products"],
    quick: true,
    inject: diesAt("products", die("before emit", stockSettled.name)),
  },
  {
    number: 6,
    name: "all products nodes unavailable for a minute",
    async inject({ system, quick }) {
      const slots = system.running("products");
      await Promise.all(slots.map(({ process }) => process.kill()));
      await pause(quick ? 15_000 : 60_000);
      await Promise.all(slots.map((slot) => system.launch(slot)));
    },
  },
  {
    number: 7,
    name: "orders restarts while products is down",
    async inject({ system }) {
      const [slot] = system.running("products");
      await slot?.process.arm(die("before query", "insert into reservations"));
      await slot?.process.exited(20_000);
      for (const orders of system.running("orders")) {
        await orders.process.kill();
        await system.launch(orders);
      }
      if (slot) await system.launch(slot);
    },
  },
  {
    number: 8,
    name: "the gateway dies in the middle of a POST",
    nodes: { api: 2 },
    random: ["api", "orders"],
    async inject(chaos) {
      const { system, load } = chaos;
      const [slot] = system.running("api");
      const orders = system.node("orders");
      await orders.arm({ point: "after query", match: NEW_ORDER, does: "delay", ms: 500 });
      const waiting = () => [...load.orders.values()].slice(-20).filter(({ status }) => status === undefined).length;
      await eventually("several POSTs are in flight", () => waiting() >= 3, 20_000, 5);
      await slot?.process.kill();
      await orders.arm();
      if (slot) await system.launch(slot);
    },
  },
  {
    number: 9,
    name: "RabbitMQ stopped and started",
    withinMs: 15_000,
    random: ["rabbitmq"],
    quick: true,
    async inject({ system, quick }) {
      await system.rabbit.ctl("stop_app");
      await pause(quick ? 3_000 : 8_000);
      await system.rabbit.ctl("start_app");
      await system.rabbit.untilReady();
    },
  },
  {
    number: 10,
    name: "RabbitMQ killed",
    withinMs: 15_000,
    random: ["rabbitmq"],
    async inject({ system }) {
      await system.rabbit.kill();
      await system.rabbit.launch();
    },
  },
  {
    number: 11,
    name: "every AMQP connection closed",
    withinMs: 10_000,
    random: ["rabbitmq"],
    quick: true,
    inject: async ({ system }) => {
      await system.rabbit.ctl("close_all_connections", "chaos");
    },
  },
  {
    number: 12,
    name: "a channel error",
    withinMs: 15_000,
    random: ["orders", "products"],
    quick: true,
    async inject({ system }) {
      const broken: SystemNode[] = [system.node("orders"), system.node("products")];
      await Promise.all(broken.map((node) => node.arm({ point: "now", does: "channel error" })));
    },
  },
  {
    number: 13,
    name: "a 9 s action with its connection closed",
    async inject(chaos) {
      const { system, load, expect } = chaos;
      const [slot] = system.running("products");
      const reason = `nine seconds ${Date.now()}`;
      await slot?.process.arm({ point: "before query", match: reason, does: "delay", ms: 9_000 });
      void load.adjust(anyProduct(chaos), 1, reason);
      await pause(1_000); // the action is running by now; its call times out after 2 s
      slot?.amqp.reset();
      const applied = () => queryValue(chaos, "products", "select true from stock_movements where reason = $1", reason);
      await eventually("the long action has finished", applied, 20_000);
      expect(slot?.process.isRunning === true, "the node with the long action has exited");
    },
  },
  {
    number: 14,
    name: "network frozen for 8 s, then reset",
    random: ["rabbitmq", "databases"],
    quick: true,
    async inject(chaos) {
      const { system, quick } = chaos;
      for (const lines of [system.amqpProxies, [system.databases.orders, system.databases.products]]) {
        for (const line of lines) line.freeze();
        await pause(quick ? 4_000 : 8_000);
        for (const line of lines) line.thaw();
        await untilAccepting(chaos);
        for (const line of lines) line.reset();
        await untilAccepting(chaos);
      }
    },
  },
  {
    number: 15,
    name: "latency and throttling",
    async inject(chaos) {
      const { system, load, expect } = chaos;
      const lines = [...system.amqpProxies, system.databases.orders, system.databases.products];
      for (const line of lines) line.slowDown(40, 40_000);
      const before = load.window.accepted;
      await pause(20_000);
      for (const line of lines) line.slowDown(0, Infinity);
      expect(load.window.accepted > before, "no order was accepted over a slow network");
      const most =
        (await queryValue<number>(chaos, "orders", "select max(attempts) from outbox where created_at > now() - interval '20 s'")) ?? 0;
      expect(most <= 6, `an event was published ${most} times within 20 s`);
    },
  },
  {
    number: 16,
    name: "PostgreSQL restarted at once",
    random: ["databases"],
    quick: true,
    inject: ({ system }) => system.restartPostgres(),
  },
  {
    number: 17,
    name: "connection cut during COMMIT",
    random: ["databases"],
    async inject({ system }) {
      // orders commits with its single insert, recognised by its bound values; products sends an explicit commit
      const cuts = [cutCommits(system.databases.orders, '"unit_price_cents'), cutCommits(system.databases.products, "commit\0")];
      try {
        await eventually("connections were cut during commits", () => cuts.every((one) => one.cuts() >= 8), 60_000);
      } finally {
        for (const one of cuts) one.stop();
      }
    },
  },
  {
    number: 18,
    name: "pool exhausted",
    async inject(chaos) {
      const { system, load, expect } = chaos;
      await system.relaunch("orders", { env: { CHAOS_POOL: "1" } });
      await untilAccepting(chaos);
      load.openWindow();
      const node = system.node("orders");
      await node.arm({ point: "before query", match: NEW_ORDER, does: "sleep in the database", ms: 2_500, times: 4 });
      await eventually("requests are refused", () => load.window.failures >= 5, 30_000);
      await node.arm();
      await untilAccepting(chaos);
      expect(load.window.failures >= 5, "a pool of one connection refused nothing");
    },
    after: ({ system }) => system.relaunch("orders"),
  },
  {
    number: 19,
    name: "one event 100 times at once",
    random: ["rabbitmq", "databases"],
    quick: true,
    inject: (chaos) =>
      chaos.system.asNode(async (broker) => {
        const [order] = await orderMany(chaos, 1, anyProduct(chaos));
        if (order === undefined) return;
        const event = { orders: [{ order_id: order.id, lines: order.items }] };
        await Promise.all(Array.from({ length: 100 }, () => broker.emit(orderCreated.name, event)));
        await becomes(chaos, order, "CONFIRMED");
        const movements = "select count(*)::int from stock_movements where order_id = $1";
        const moved = await queryValue<number>(chaos, "products", movements, order.id);
        chaos.expect(moved === 1, `one event sent 100 times moved stock ${moved ?? 0} times`);
      }),
  },
  {
    number: 20,
    name: "cancel overtakes create",
    quick: true,
    async inject(chaos) {
      const node = chaos.system.node("orders");
      await node.arm({ point: "before emit", match: orderCreated.name, does: "postpone", ms: 3_000 });
      tombstones = await orderMany(chaos, 5, anyProduct(chaos));
      await Promise.all(tombstones.map((order) => chaos.load.cancel(order)));
      await node.arm();
      await pause(3_500); // until the last postponed event is out
    },
    async after(chaos) {
      const early = "select count(*)::int from reservations where order_id = any($1) and state = 'RELEASED' and lines = '[]'";
      const ids = tombstones.map((order) => order.id);
      const left = await queryValue<number>(chaos, "products", early, ids);
      chaos.expect(left === ids.length, `only ${left ?? 0} of ${ids.length} early cancels left a tombstone`);
    },
  },
  {
    number: 21,
    name: "a stale RESERVED after a cancel",
    random: ["rabbitmq", "databases"],
    async inject(chaos) {
      const [order] = await orderMany(chaos, 1, anyProduct(chaos));
      if (order === undefined) return;
      await becomes(chaos, order, "CONFIRMED");
      await chaos.load.cancel(order);
      const lines_digest = digestOf(order.items);
      await chaos.system.asNode((broker) =>
        broker.emit(stockSettled.name, { orders: [{ order_id: order.id, outcome: "RESERVED", lines_digest }] }),
      );
      await untilAccepting(chaos);
      chaos.expect((await statusOf(chaos, order)) === "CANCELLED", "a stale RESERVED changed a cancelled order");
    },
  },
  {
    number: 22,
    name: "poison payload in the outbox",
    async inject(chaos) {
      const { system, load, expect } = chaos;
      const product = anyProduct(chaos);
      const [poison] = await insertOrders(system, 1, product, { lines: "nonsense" });
      const is = (state: string) => async () =>
        (await queryValue(chaos, "orders", "select state from outbox where id = $1", poison?.id)) === state;
      await eventually("the poisoned row is parked", is("PARKED"), 30_000);
      await untilAccepting(chaos); // other orders are still processed
      const mended = { lines: [{ product_id: product, quantity: 1 }] };
      await system.sql("orders", "update outbox set payload = $2 where id = $1", [poison?.id, mended]);
      const replayed = await load.asAdmin("POST", `/admin/outbox/${poison?.id ?? ""}/replay`);
      expect(replayed?.status === 202, `the replay's response was ${replayed?.status ?? "missing"}`);
      await eventually("the repaired row is settled", is("SETTLED"), 30_000);
    },
  },
  {
    number: 23,
    name: "a handler always throws, then is fixed",
    async inject(chaos) {
      const { system, load, expect } = chaos;
      await system.relaunch("orders", { env: { OUTBOX_RETRY_MS: "200", OUTBOX_RETRY_MAX_MS: "500" } });
      const lemon = await load.createProduct(100);
      const products = system.node("products");
      await products.arm({ point: "before query", match: `\\"product_id\\":\\"${lemon}\\"`, does: "throw" });
      const orders = await orderMany(chaos, 5, lemon);
      const find = "select id from outbox where state = 'PARKED' and subject = any($1)";
      const parked = () => system.sql<{ id: string }>("orders", find, [orders.map((order) => order.id)]);
      await eventually("all five are parked", async () => (await parked()).length === 5, 60_000);
      await untilAccepting(chaos);
      await products.arm();
      for (const { id } of await parked()) {
        const replayed = await load.asAdmin("POST", `/admin/outbox/${id}/replay`);
        expect(replayed?.status === 202 || replayed?.status === 409, `a replay's response was ${replayed?.status ?? "missing"}`);
      }
      for (const order of orders) await becomes(chaos, order, "CONFIRMED");
    },
    after: ({ system }) => system.relaunch("orders"),
  },
  {
    number: 24,
    name: "slow products and 3,000 waiting orders",
    withinMs: 90_000,
    async inject(chaos) {
      const { system, expect } = chaos;
      const products = system.node("products");
      await products.arm({ point: "before query", match: "begin", does: "delay", ms: 2_000 });
      const before = products.memoryMb;
      const product = anyProduct(chaos);
      await insertOrders(system, 3_000, product, { lines: [{ product_id: product, quantity: 1 }] });
      // in flight: published within OUTBOX_RETRY_MS; overdue rows no longer count against the in-flight cap
      const waiting = "select count(*)::int from outbox where state = 'PENDING' and emitted_at > now() - interval '5 s'";
      let most = 0;
      for (const end = Date.now() + 12_000; Date.now() < end;)
        most = Math.max(most, (await queryValue<number>(chaos, "orders", waiting)) ?? 0);
      const after = products.memoryMb;
      await products.arm();
      // tolerates one extra batch, since the relay and a commit may claim at the same moment
      expect(most > 500 && most <= 1_024 + 128, `${most} events were in flight at the same time`);
      expect(after < before + 150, `the products node grew from ${before.toFixed(0)} to ${after.toFixed(0)} MB`);
    },
  },
  {
    number: 25,
    name: "the last unit, 200 buyers",
    random: [],
    quick: true,
    async inject(chaos) {
      lastUnit = await chaos.load.createProduct(1);
      await orderMany(chaos, 200, lastUnit);
    },
    async after(chaos) {
      const buyers =
        "select count(*)::int from orders o join order_lines l on l.order_id = o.id where l.product_id = $1 and o.status = 'CONFIRMED'";
      const got = await queryValue<number>(chaos, "orders", buyers, lastUnit);
      chaos.expect(got === 1, `${got ?? 0} buyers got the last unit`);
    },
  },
  {
    number: 26,
    name: "baskets in opposite order",
    random: [],
    quick: true,
    async inject({ load }) {
      const products = [...load.products.keys()].slice(0, 4);
      const baskets = [products, products.toReversed()].map((ids) => ids.map((product_id) => ({ product_id, quantity: 1 })));
      const orders = await Promise.all(Array.from({ length: 100 }, (_, n) => load.order(baskets[n % 2] ?? [])));
      await Promise.all(orders.filter((_, n) => n % 3 === 0).map((order) => load.cancel(order)));
    },
    after: ({ system, expect }) => {
      expect(!system.logsContain("deadlock detected"), "a node logged a deadlock");
      return Promise.resolve();
    },
  },
  {
    number: 27,
    name: "rolling restart by SIGTERM under load",
    nodes: TWO_OF_EACH,
    async inject({ system, load, expect }) {
      load.openWindow();
      for (const service of ["orders", "products", "users", "api"] as const)
        for (const slot of system.running(service)) {
          const before = load.window.failures;
          const code = await system.shutDown(slot);
          expect(code === 0, `${slot.name} exited with ${code ?? "a signal"}`);
          await system.launch(slot);
          expect(load.window.failures === before, `${load.window.failures - before} requests failed while ${slot.name} restarted`);
        }
    },
  },
  {
    number: 28,
    name: "clocks an hour off",
    impossible: () => (clockOffset("+1s") ? undefined : "faketime is not installed"),
    async inject(chaos) {
      await chaos.system.relaunch("orders", { env: clockOffset("+3600s") });
      await chaos.system.relaunch("products", { env: clockOffset("-3600s") });
      await untilAccepting(chaos);
      await pause(8_000);
    },
    after: async ({ system }) => {
      await system.relaunch("orders");
      await system.relaunch("products");
    },
  },
  {
    number: 29,
    name: "SIGSTOP of a node for 60 s",
    nodes: { orders: 2, products: 2 },
    random: ["orders", "products", "rabbitmq", "databases"],
    async inject({ system, load, quick, random, expect }) {
      const nodes = random() < 0.5 ? [system.node("orders")] : [system.node("orders"), system.node("products")];
      for (const node of nodes) node.signal("SIGSTOP");
      await pause(quick ? 15_000 : 60_000);
      const silence = load.window.silence;
      for (const node of nodes) node.signal("SIGCONT");
      expect(silence < 15_000, `there was no response for ${silence} ms although peers were running`);
    },
  },
  { number: 30, name: "a whole node and its database killed", inject: killSingleNode },
];

export const FAULTS: readonly Fault[] = [
  ...FIRST_THIRTY,
  ...RESTORE_FAULTS,
  ...BROKER_FAULTS,
  ...FAILOVER_FAULTS,
  ...DISK_FAULTS,
  ...DATABASE_FAULTS,
  ...RELAY_FAULTS,
  ...NEIGHBOUR_FAULTS,
  ...UPGRADE_FAULTS,
].sort((one, other) => one.number - other.number);
