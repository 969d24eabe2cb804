import { FairSlots } from "../../mixins/fair-queue";

/**
 * What a gateway has in flight of each kind of call that is not batched, and how many wait for their turn. The kinds do not
 * wait for each other: slow lists leave orders alone. Logins and registrations wait in the users service, which knows how long a
 * hash takes.
 *
 * Each change of a product may hold one of the ten connections of the products pool while it waits for rows that a reservation has
 * locked, and each new text takes the database a core for 10 ms: `products` has so few slots that reads, quotes and reservations still find
 * a connection, and logins a core.
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

export const lanes = (): Lanes => ({
  lists: new FairSlots(LANES.lists),
  users: new FairSlots(LANES.users),
  passwords: new FairSlots(LANES.passwords),
  products: new FairSlots(LANES.products),
  orders: new FairSlots(LANES.orders),
  operations: new FairSlots(LANES.operations),
  audits: new FairSlots(LANES.audits),
});

/** Requests that a gateway works on at a time, and those that wait until it does: more would wait longer, and none be served sooner. */
export const ADMISSION = { slots: 256, places: 256 };
