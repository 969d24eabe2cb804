import type { Result } from "../../contracts/contract";
import { REPAIRS_PER_CALL, type repair } from "../../contracts/orders";
import type { Database } from "../../mixins/database";
import { compareOne, differences, type Difference, type ProductsSide } from "./audit";
import type { OrderEvent } from "./order";

/** What a repair may do. It never edits a stock count itself: the event's handler and the release do, through the ledger. */
export interface Repairer {
  /** Logs what is about to be done, and on whose behalf. */
  note(id: string, line: string): Promise<void>;
  /** Republishes an order's event. @returns false if the event no longer belongs to the order's status */
  republish(id: string, event: OrderEvent): Promise<boolean>;
  /** Releases what products has reserved for an order; leaves a tombstone if that is nothing. */
  release(id: string): Promise<void>;
}

type Plan = { do: "republish"; event: OrderEvent } | { do: "release" } | { do: "decide" };

/**
 * How to repair a difference between an order and its reservation. Events that products has lost are republished, which is harmless if it
 * has not lost them. Nothing is guessed: any other difference is left for a person to decide.
 */
export function planOf({ order, reservation, hasSameLines }: Pick<Difference, "order" | "reservation" | "hasSameLines">): Plan {
  if (order === undefined) return { do: "release" };
  if (order.outbox !== null || !hasSameLines) return { do: "decide" };
  const state = reservation?.state ?? "none";
  switch (order.status) {
    case "PENDING":
      return state === "RELEASED" ? { do: "decide" } : { do: "republish", event: "order.created" };
    case "CONFIRMED":
      return state === "none" ? { do: "republish", event: "order.created" } : { do: "decide" };
    case "REJECTED":
      return state === "none" || state === "RESERVED" ? { do: "release" } : { do: "decide" };
    case "CANCELLED":
      return state === "RESERVED" ? { do: "republish", event: "order.cancelled" } : { do: "decide" };
    default:
      return order.status satisfies never;
  }
}

/**
 * Finds the differences between orders and reservations as the audit does, and repairs those that can be repaired.
 * @param apply false only lists the repairs
 */
export async function repairShop(db: Database, products: ProductsSide, repairer: Repairer, apply: boolean): Promise<Result<typeof repair>> {
  const result: Result<typeof repair> = { applied: apply, repairs: [], decisions: [], undecided: 0, more: false };
  for await (const found of differences(db, products))
    for (const order_id of found) {
      const difference = await compareOne(db, products, order_id); // a message may have been in flight before
      if (difference === undefined) continue;
      const plan = planOf(difference);
      const { what } = difference;
      if (plan.do === "decide") {
        result.undecided++;
        if (result.decisions.length < REPAIRS_PER_CALL) result.decisions.push({ order_id, what });
        continue;
      }
      if (result.repairs.length === REPAIRS_PER_CALL) return { ...result, more: true };
      const action = plan.do === "release" ? "release" : plan.event;
      if (apply) {
        await repairer.note(order_id, `order ${order_id} is repaired (${action}): ${what}`);
        if (plan.do === "release") await repairer.release(order_id);
        else if (!(await repairer.republish(order_id, plan.event))) continue;
      }
      result.repairs.push({ order_id, what, action });
    }
  return result;
}
