import { NO_LINES } from "../../../contracts/lines";
import { ServiceBroker } from "moleculer";
import { problem } from "../../../broker/errors";
import { orderCancelled } from "../../../contracts/orders";
import { stockRefused, stockSettled, type Outcome, type Refusal } from "../../../contracts/products";
import { replyToEach } from "../../../mixins/replier.mixin";
import { testId } from "../../../testkit/ids";

describe("the reply to an event with several orders", () => {
  const FULL = ["SERVICE_UNAVAILABLE", "TOO_MANY_REQUESTS"] as const;
  it.each(FULL)("reports outcomes and refusals even if another order gets no reply, and then rejects with the reason: %s", async (code) => {
    const sent: { settled: Outcome[]; refused: Refusal[] } = { settled: [], refused: [] };
    const broker = new ServiceBroker({ logger: false });
    jest.spyOn(broker, "emit").mockImplementation((event: string, payload?: { orders: never[] }) => {
      (event === "stock.settled" ? sent.settled : sent.refused).push(...(payload?.orders ?? []));
      return Promise.resolve();
    });
    const [released, silent, broken, malformed] = [testId(1), testId(2), testId(3), testId(4)];
    const work = ({ order_id }: { order_id: string }): Promise<Outcome> => {
      if (order_id === released) return Promise.resolve({ order_id, outcome: "RELEASED", lines_digest: NO_LINES });
      throw order_id === silent ? problem(code, "too much is waiting") : new Error("it failed");
    };
    const asked = [{ order_id: released }, { order_id: silent }, { order_id: broken }, { order_id: malformed, what: "is this?" }];
    await expect(replyToEach(broker, orderCancelled, { settled: stockSettled, refused: stockRefused }, asked, work)).rejects.toThrow(
      "too much is waiting",
    );
    expect(sent.settled.map(({ order_id }) => order_id)).toEqual([released]);
    expect(new Map(sent.refused.map(({ order_id, permanent }) => [order_id, permanent]))).toEqual(
      new Map([
        [broken, false],
        [malformed, true],
      ]),
    );
  });
});
