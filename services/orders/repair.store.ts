import type { Status } from "../../contracts/orders";
import type { Database } from "../../mixins/database";
import { createdMessage, isLarge, weightOf } from "./insert.store";
import type { OrderEvent } from "./order";
import { findOrders } from "./read.store";
import { lockOrder } from "./transitions.store";

/** The statuses in which an event may be republished. */
const REPUBLISHED_IN: Readonly<Record<OrderEvent, readonly Status[]>> = {
  "order.created": ["PENDING", "CONFIRMED"],
  "order.cancelled": ["CANCELLED"],
};

/**
 * Makes the order's settled outbox row pending again, or writes it if it is missing.
 * @returns false if the event does not belong to the order's status
 */
export function republish(db: Database, id: string, event: OrderEvent): Promise<boolean> {
  return db.transaction(async (query) => {
    await lockOrder(query, id);
    const [order] = await findOrders(query, [id]);
    if (order === undefined || !REPUBLISHED_IN[event].includes(order.status)) return false;
    const payload = event === "order.created" ? createdMessage(order).payload : {};
    await query(
      `insert into outbox (subject, user_id, weight, large, event, payload) values ($1, $2, $3, $4, $5, $6)
       on conflict (subject, event) do update
         set state = 'PENDING', attempts = 0, refusals = 0, emitted_at = null, next_attempt_at = now(), last_error = null, settled_at = null
         where outbox.state = 'SETTLED'`,
      [id, order.user_id, weightOf(order), isLarge(order), event, JSON.stringify(payload)],
    );
    return true;
  });
}
