import { randomUUID } from "node:crypto";
import { digestOf } from "../../contracts/lines";
import { orderCreated } from "../../contracts/orders";
import { stockSettled } from "../../contracts/products";
import { until } from "../../testkit/until";
import { Gate } from "./interference";
import type { RecordedUser } from "./recorded-user";
import type { ScenarioShop } from "./scenario-shop";

/** The participants of a scenario. */
export interface Participants {
  shop: ScenarioShop;
  seller: RecordedUser;
  buyer: RecordedUser;
  stranger: RecordedUser;
}

const CREATED = orderCreated.name;
const SETTLED = stockSettled.name;

/**
 * Each scenario is what clients do, together with the race or fault that reveals a mutant. It is deterministic, both in a correct shop and in a
 * mutant. A correct shop withstands all of them.
 */
export const SCENARIOS = {
  async "two buyers of the last unit"({ shop, seller, buyer, stranger }) {
    const product = await seller.createProduct(1);
    const gate = new Gate(["update products as p"]);
    try {
      await buyer.order(product, 1);
      await until("the first order's stock is about to be taken", () => gate.arrivals >= 1);
      await stranger.order(product, 1);
      await until(
        "the other order's stock is about to be taken, too, or waits for the lock",
        async () => gate.arrivals >= 2 || (await shop.isBlocked()),
      );
    } finally {
      gate.open();
    }
  },

  async "orders for more than there is"({ shop: { events }, seller, buyer }) {
    const product = await seller.createProduct(5);
    events.hold(CREATED); // both orders are accepted before stock is reserved
    await buyer.order(product, 3);
    await buyer.order(product, 3);
    await events.release(CREATED);
  },

  async "a repeated key"({ seller, buyer }) {
    const product = await seller.createProduct(10);
    const key = randomUUID();
    await buyer.order(product, 1, key);
    await buyer.order(product, 1, key);
    await buyer.order(product, 2, key);
  },

  async "a cancel that overtakes its create"({ shop, seller, buyer }) {
    const { events } = shop;
    const product = await seller.createProduct(10);
    events.hold(CREATED);
    const { id } = await buyer.order(product, 3);
    await buyer.cancel(id);
    await shop.becomesQuiet();
    await events.release(CREATED);
  },

  async "a lost order.created"({ shop: { events }, seller, buyer }) {
    const product = await seller.createProduct(10);
    const before = events.count(CREATED);
    events.lose(CREATED);
    await buyer.order(product, 3);
    await until("the event is lost", () => events.count(CREATED) > before);
  },

  async "a cancel of a confirmed order"({ seller, buyer }) {
    const product = await seller.createProduct(10);
    await buyer.cancel(await buyer.buys(product, 3));
  },

  async "a repeated order.created"({ shop, seller, buyer }) {
    const { events } = shop;
    const product = await seller.createProduct(10);
    const order_id = await buyer.buys(product, 3);
    const before = events.count(CREATED);
    await shop.emit(CREATED, [{ order_id, lines: [{ product_id: product, quantity: 3 }] }]);
    await until("the event is handled", () => events.count(CREATED) > before);
  },

  async "two changes of one version, one after the other"({ seller }) {
    const product = await seller.createProduct(10);
    const { etag } = await seller.product(product);
    await seller.reprice(product, 1, etag);
    await seller.reprice(product, 2, etag);
  },

  async "two changes of one version, at one time"({ seller }) {
    const product = await seller.createProduct(10);
    const { etag } = await seller.product(product);
    const gate = new Gate(['UPDATE "products"']);
    try {
      const changes = [seller.reprice(product, 1, etag), seller.reprice(product, 2, etag)];
      await until("both are about to be made", () => gate.arrivals >= 2);
      gate.open();
      await Promise.all(changes);
    } finally {
      gate.open();
    }
  },

  async "a sale between a read and a change"({ seller, buyer }) {
    const product = await seller.createProduct(10);
    const { etag } = await seller.product(product);
    await buyer.buys(product, 3);
    await seller.product(product);
    await seller.reprice(product, 1, etag);
    await seller.product(product);
  },

  async "a read before and after a reservation"({ seller, buyer }) {
    const product = await seller.createProduct(10);
    await buyer.product(product);
    await buyer.buys(product, 3);
    await buyer.product(product);
  },

  async "a cancel that is faster than the reply"({ shop: { events }, seller, buyer }) {
    const product = await seller.createProduct(10);
    const before = events.count(SETTLED);
    events.hold(SETTLED);
    const { id } = await buyer.order(product, 3);
    await until("the stock is reserved", () => events.count(SETTLED) > before);
    await buyer.cancel(id);
    await buyer.read(id);
    await events.release(SETTLED);
    await buyer.read(id);
  },

  async "a cancel while the order is settled"({ shop, seller, buyer }) {
    const product = await seller.createProduct(10);
    const gate = new Gate(["update orders as o set status"]);
    try {
      const { id } = await buyer.order(product, 3);
      await until("the order is about to be CONFIRMED", () => gate.arrivals >= 1);
      let isDone = false;
      const cancel = buyer.cancel(id).finally(() => (isDone = true));
      await until("the cancel is done, or waits for the lock", async () => isDone || (await shop.isBlocked()));
      gate.open();
      await cancel;
    } finally {
      gate.open();
    }
  },

  async "a reply for other lines"({ shop, seller, buyer }) {
    const { events } = shop;
    const product = await seller.createProduct(10);
    const before = { created: events.count(CREATED), settled: events.count(SETTLED) };
    events.lose(CREATED);
    const { id } = await buyer.order(product, 3);
    await until("the event is lost", () => events.count(CREATED) > before.created);
    const lines_digest = digestOf([{ product_id: product, quantity: 1 }]);
    await shop.emit(SETTLED, [{ order_id: id, outcome: "RESERVED", lines_digest }]);
    await until("the reply is handled", () => events.count(SETTLED) > before.settled);
    await events.clear();
    await shop.replayParked();
  },

  async "a stranger"({ seller, buyer, stranger }) {
    const product = await seller.createProduct(10);
    const order = await buyer.buys(product, 3);
    await stranger.read(order);
    await stranger.cancel(order);
    await buyer.read(order);
  },

  async "a walk through a list"({ seller, buyer }) {
    const product = await seller.createProduct(10);
    for (let n = 0; n < 5; n++) await buyer.order(product, 1);
    await buyer.walk(2);
  },

  async "reads through two gateways"({ shop: { events }, seller, buyer }) {
    const product = await seller.createProduct(10);
    events.hold(CREATED);
    const { id } = await buyer.order(product, 3);
    await buyer.read(id, 0);
    await events.release(CREATED);
    await buyer.becomes(id, "CONFIRMED", 1);
    await buyer.read(id, 0);
  },

  async "a followed order"({ shop: { events }, seller, buyer }) {
    const product = await seller.createProduct(10);
    events.hold(CREATED);
    const { id } = await buyer.order(product, 3);
    const stream = buyer.follow(id);
    await stream.has("PENDING");
    await events.release(CREATED);
    await stream.has("CONFIRMED");
    const late = buyer.follow(id);
    await late.has("CONFIRMED");
    await buyer.cancel(id);
    await Promise.all([stream.end(), late.end()]);
  },
} satisfies Record<string, (participants: Participants) => Promise<void>>;

export type Scenario = keyof typeof SCENARIOS;
