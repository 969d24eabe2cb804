import { ServiceBroker } from "moleculer";
import { implement } from "../../../broker/contract";
import { problem } from "../../../broker/errors";
import * as orders from "../../../contracts/orders";
import { batchedCalls } from "../../../services/api/batched-calls";
import { testId } from "../../../testkit/ids";

const NEW_FIELD = 7;
let broker: ServiceBroker;
afterEach(() => broker.stop());

/** An orders node of the previous release: it refuses every call in which an order has the quantity NEW_FIELD, as it would an unknown field. */
async function startOldNode(): Promise<void> {
  broker = new ServiceBroker({ logger: false, validator: false });
  broker.createService({
    name: "orders",
    actions: {
      createMany: implement(orders.createMany, (ctx) => {
        const placed = ctx.params.orders;
        if (placed.some(({ items }) => items[0]?.quantity === NEW_FIELD))
          throw problem("VALIDATION_ERROR", "the request breaks its contract");
        return Promise.resolve(placed.map(() => ({ error: { code: "INTERNAL_ERROR", detail: "reached" } })));
      }),
    },
  });
  await broker.start();
}

it("an order with a field that an older orders node refuses does not take the other orders of its batch along", async () => {
  await startOldNode();
  const { createOrder } = batchedCalls(broker);
  const requester = { address: "127.0.0.1", user: undefined, isWanted: () => true };
  const place = (quantity: number) =>
    createOrder({ items: [{ product_id: testId(1), quantity }] }, { id: testId(2), role: "user" }, requester).catch(
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
