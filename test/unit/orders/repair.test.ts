import type { Status } from "../../../contracts/orders";
import type { Reservation } from "../../../contracts/products";
import { planOf } from "../../../services/orders/repair";
import { testId } from "../../../testkit/ids";

const STATUSES = ["PENDING", "CONFIRMED", "REJECTED", "CANCELLED"] as const;
const STATES = ["RESERVED", "REJECTED", "RELEASED", "none"] as const;
type State = (typeof STATES)[number];

const order = (status: Status, outbox: "PARKED" | null = null) => ({ id: testId(1), status, outbox, lines: "" });
const reservation = (state: State): Reservation | undefined => (state === "none" ? undefined : { order_id: testId(1), state, lines: [] });

/** The repair of each difference; all others need a manual decision. */
const MENDED: Record<string, object> = {
  "PENDING none": { do: "republish", event: "order.created" },
  "PENDING RESERVED": { do: "republish", event: "order.created" },
  "PENDING REJECTED": { do: "republish", event: "order.created" },
  "CONFIRMED none": { do: "republish", event: "order.created" },
  "REJECTED none": { do: "release" },
  "REJECTED RESERVED": { do: "release" },
  "CANCELLED RESERVED": { do: "republish", event: "order.cancelled" },
};

describe("the repair of a difference", () => {
  it.each(STATUSES.flatMap((status) => STATES.map((state) => [status, state] as const)))("%s and %s", (status, state) => {
    const difference = { order: order(status), reservation: reservation(state), hasSameLines: true };
    expect(planOf(difference)).toEqual(MENDED[`${status} ${state}`] ?? { do: "decide" });
    expect(planOf({ ...difference, hasSameLines: false })).toEqual({ do: "decide" });
    expect(planOf({ ...difference, order: order(status, "PARKED") })).toEqual({ do: "decide" });
  });

  it("stock that is reserved for a missing order is released", () => {
    expect(planOf({ order: undefined, reservation: reservation("RESERVED"), hasSameLines: false })).toEqual({ do: "release" });
  });
});
