import { fromCents } from "../../contracts/money";
import type { Order, Status } from "../../contracts/orders";
import type { OrderLine } from "./order";

/** An order as it is stored, with its lines and history. */
export interface OrderRow {
  id: string;
  user_id: string;
  request_hash: string;
  status: Status;
  total_cents: number;
  reason: string | null;
  version: number;
  created_at: Date;
  updated_at: Date;
  lines: OrderLine[];
  history: { status: Status; at: string }[];
}

/**
 * What every change of an order writes, for an `update orders as o`. The time is that of the clock, not of the transaction, since a transaction
 * that began earlier may lock the order later. It never runs backwards, even if the clock does.
 */
export const CHANGED = "version = o.version + 1, updated_at = greatest(clock_timestamp(), o.updated_at)";

export function present(row: OrderRow): Order {
  return {
    id: row.id,
    user_id: row.user_id,
    status: row.status,
    total_price: fromCents(row.total_cents),
    items: row.lines.map((line) => ({
      product_id: line.product_id,
      name: line.name,
      unit_price: fromCents(line.unit_price_cents),
      quantity: line.quantity,
    })),
    reason: row.reason,
    history: row.history.map(({ status, at }) => ({ status, at: new Date(at).toISOString() })),
    created_at: row.created_at.toISOString(),
    updated_at: row.updated_at.toISOString(),
    version: row.version,
  };
}

/** What a new order has in the columns that change later. */
export const initialState = (created_at: Date): Pick<OrderRow, "status" | "reason" | "version" | "updated_at" | "history"> => ({
  status: "PENDING",
  reason: null,
  version: 1,
  updated_at: created_at,
  history: [{ status: "PENDING", at: created_at.toISOString() }],
});

/** An order as the first response showed it, whatever its status is now: the response to a retry. */
export const presentAsCreated = (row: OrderRow): Order => present({ ...row, ...initialState(row.created_at) });
