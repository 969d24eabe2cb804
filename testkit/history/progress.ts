import type { Status } from "../../contracts/orders";
import { NEXT } from "../../services/orders/order";

/** A set of statuses that an order has had, as bits. */
export type Statuses = number;

const ALL: readonly Status[] = ["PENDING", "CONFIRMED", "REJECTED", "CANCELLED"];
const BIT: Readonly<Record<Status, Statuses>> = { PENDING: 1, CONFIRMED: 2, REJECTED: 4, CANCELLED: 8 };
export const NONE: Statuses = 0;

/** For each status, itself and the statuses from which it can be reached. */
const BEFORE: Readonly<Record<Status, Statuses>> = {
  PENDING: closure("PENDING"),
  CONFIRMED: closure("CONFIRMED"),
  REJECTED: closure("REJECTED"),
  CANCELLED: closure("CANCELLED"),
};

function closure(status: Status): Statuses {
  return ALL.filter((one) => NEXT[one].includes(status)).reduce((set, one) => set | closure(one), BIT[status]);
}

export const setOf = (statuses: readonly Status[]): Statuses => statuses.reduce((set, status) => set | BIT[status], NONE);
export const has = (set: Statuses, status: Status): boolean => (set & BIT[status]) !== 0;
export const list = (set: Statuses): Status[] => ALL.filter((status) => has(set, status));

/** Whether an order that has had all of these statuses can now have `status`. */
export const mayBecome = (been: Statuses, status: Status): boolean => (been & ~BEFORE[status]) === 0;

/** Whether one order can have had all of these statuses. */
export const isConsistent = (been: Statuses): boolean => ALL.some((status) => mayBecome(been, status));

/** Whether the statuses are a path through the state machine; `whole`: from PENDING on. */
export const isPath = (statuses: readonly Status[], whole = true): boolean =>
  (!whole || statuses[0] === "PENDING") && statuses.every((status, i) => i === 0 || NEXT[statuses[i - 1] ?? status].includes(status));
