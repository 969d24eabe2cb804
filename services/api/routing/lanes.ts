import { FairSlots, type SlowAddresses } from "../../../mixins/fair-queue";

/**
 * Per kind of call that is not batched: the maximum in flight per gateway, and the maximum waiting. The kinds don't wait for each other,
 * so slow lists don't delay orders. Logins and registrations queue in the users service, which knows how long a hash takes.
 *
 * Each change of a product may hold one of the ten connections of the products pool while it waits for rows that a reservation has
 * locked, and each new text takes 10 ms of a database core. `products` has few slots, so that reads, quotes and reservations
 * still get a connection, and logins a core.
 */
const LANES = {
  lists: { slots: 4, places: 64 },
  users: { slots: 16, places: 128 },
  passwords: { slots: 128, places: 128 },
  products: { slots: 2, places: 128 },
  orders: { slots: 4, places: 128 },
  operations: { slots: 4, places: 64 },
  audits: { slots: 1, places: 8 },
} as const;

export type Lane = keyof typeof LANES;
export type Lanes = Readonly<Record<Lane, FairSlots>>;

/** @param slow the addresses whose lists were slow */
export const lanes = (slow: SlowAddresses): Lanes => ({
  lists: new FairSlots({ ...LANES.lists, slow }),
  users: new FairSlots(LANES.users),
  passwords: new FairSlots(LANES.passwords),
  products: new FairSlots(LANES.products),
  orders: new FairSlots(LANES.orders),
  operations: new FairSlots(LANES.operations),
  audits: new FairSlots(LANES.audits),
});

/** Requests that a gateway works on at a time, and requests that may wait. Higher limits would only lengthen the wait. */
export const ADMISSION = { slots: 256, places: 256 };
