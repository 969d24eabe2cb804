import { ServiceBroker } from "moleculer";
import { implement } from "../../../broker/contract";
import { problem } from "../../../broker/errors";
import * as orders from "../../../contracts/orders";
import { batchedCalls } from "../../../services/api/batched-calls";
import { testId } from "../../../testkit/ids";

const NEW_FIELD = 7;
const REQUESTER = { address: "127.0.0.1", user: undefined, isWanted: () => true };
let broker: ServiceBroker;
afterEach(() => broker.stop());

/** An orders node of the previous release: it refuses every call in which an order has the quantity NEW_FIELD, as it would an unknown field. */
const startOldNode = (): Promise<void> =>
  startNode((placed) => {
    if (placed.some(({ items }) => items[0]?.quantity === NEW_FIELD)) throw problem("VALIDATION_ERROR", "the request breaks its contract");
  });

type Placed = readonly { items: readonly { quantity: number }[] }[];

/** An orders node that creates no order. @param see gets the orders of each call */
async function startNode(see: (placed: Placed) => void): Promise<void> {
  broker = new ServiceBroker({ logger: false, validator: false });
  broker.createService({
    name: "orders",
    actions: {
      createMany: implement(orders.createMany, (ctx) => {
        const placed = ctx.params.orders;
        see(placed);
        return Promise.resolve(placed.map(() => ({ error: { code: "INTERNAL_ERROR", detail: "reached" } })));
      }),
    },
  });
  await broker.start();
}

it("an order with a field that an older orders node refuses does not take the other orders of its batch along", async () => {
  await startOldNode();
  const { createOrder } = batchedCalls(broker);
  const place = (quantity: number) =>
    createOrder({ items: [{ product_id: testId(1), quantity }] }, { id: testId(2), role: "user" }, REQUESTER).catch(
      (error: unknown) => error,
    );
  const outcomes = await Promise.all([1, NEW_FIELD, 2, 3].map(place));
  expect(outcomes.map((error) => (error as { type?: string }).type)).toEqual([
    "INTERNAL_ERROR",
    "VALIDATION_ERROR",
    "INTERNAL_ERROR",
    "INTERNAL_ERROR",
  ]);
});

it("an order of one line is created with a few others, if many orders of eight lines are pending", async () => {
  const lines: number[] = [];
  await startNode((placed) => lines.push(placed.reduce((sum, { items }) => sum + items.length, 0)));
  const { createOrder } = batchedCalls(broker);
  const place = (count: number) =>
    createOrder(
      { items: Array.from({ length: count }, (_, n) => ({ product_id: testId(n + 1), quantity: 1 })) },
      { id: testId(2), role: "user" },
      REQUESTER,
    ).catch(() => undefined);
  await Promise.all([...Array.from({ length: 100 }, () => place(8)), place(1)]);
  expect(lines.reduce((sum, n) => sum + n)).toBe(801);
  expect(Math.max(...lines)).toBeLessThanOrEqual(64);
});
