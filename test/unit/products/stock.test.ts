import { digestOf } from "../../../contracts/lines";
import fc from "fast-check";
import { check } from "../../../broker/validator";
import { Money } from "../../../contracts/contract";
import { fromCents, toCents } from "../../../contracts/money";
import type { CreatedOrder, Line } from "../../../contracts/orders";
import type { Outcome } from "../../../contracts/products";
import { netChanges, release, reserve, type StockMovement } from "../../../services/products/stock";
import { testId } from "../../../testkit/ids";

const [P1, P2] = [testId(1), testId(2)];
const PRODUCTS = [P1, P2, testId(3), testId(4)];
const UNKNOWN = testId(9);

const line = (product_id: string, quantity: number): Line => ({ product_id, quantity });
const lines = fc.uniqueArray(fc.record({ product_id: fc.constantFrom(...PRODUCTS, UNKNOWN), quantity: fc.integer({ min: 1, max: 5 }) }), {
  minLength: 1,
  maxLength: 5,
  selector: (l) => l.product_id,
});
/** Most lines are of known products; otherwise nearly every order would be rejected. */
const order = (order_id: string) =>
  fc
    .oneof(
      { weight: 4, arbitrary: lines.map((all) => all.filter((l) => l.product_id !== UNKNOWN)).filter((l) => l.length > 0) },
      { weight: 1, arbitrary: lines },
    )
    .map((wanted): CreatedOrder => ({ order_id, lines: wanted }));
const orders = (n: number) => fc.tuple(...Array.from({ length: n }, (_, i) => order(testId(i + 1))));
const shelf = fc
  .tuple(...PRODUCTS.map(() => fc.integer({ min: 0, max: 12 })))
  .map((quantities) => new Map(PRODUCTS.map((id, i) => [id, quantities[i] ?? 0])));

const add = (from: ReadonlyMap<string, number>, movements: readonly StockMovement[]): Map<string, number> => {
  const sums = new Map(from);
  for (const { product_id, delta } of movements) sums.set(product_id, (sums.get(product_id) ?? 0) + delta);
  return sums;
};
const linesOf = (movements: readonly StockMovement[], id: string, kind: StockMovement["kind"]) =>
  movements.filter((m) => m.order_id === id && m.kind === kind).map((m) => line(m.product_id, kind === "RESERVE" ? -m.delta : m.delta));

/** The inventory as the store keeps it, but in memory: reservations also serve as the inbox, and a decision is never changed. */
class Inventory {
  readonly reservations = new Map<string, { state: Outcome["outcome"]; lines: readonly Line[] }>();
  readonly movements: StockMovement[] = [];
  now: Map<string, number>;

  constructor(readonly initial: ReadonlyMap<string, number>) {
    this.now = new Map(initial);
  }

  reserve(batch: readonly CreatedOrder[]): void {
    const fresh = [...new Map(batch.map((o) => [o.order_id, o])).values()].filter((o) => !this.reservations.has(o.order_id));
    const { outcomes, movements } = reserve(fresh, this.now);
    outcomes.forEach(({ order_id, outcome }, i) => {
      this.reservations.set(order_id, { state: outcome, lines: fresh[i]?.lines ?? [] });
    });
    this.book(movements);
  }

  release(ids: readonly string[]): void {
    const asked = [...new Set(ids)];
    const holding = asked.flatMap((order_id) => {
      const held = this.reservations.get(order_id);
      if (held === undefined) this.reservations.set(order_id, { state: "RELEASED", lines: [] });
      return held?.state === "RESERVED" ? { order_id, lines: held.lines } : [];
    });
    const { outcomes, movements } = release(holding, this.now);
    outcomes.forEach(({ order_id, outcome }, i) => {
      this.reservations.set(order_id, { state: outcome, lines: holding[i]?.lines ?? [] });
    });
    this.book(movements);
  }

  private book(movements: readonly StockMovement[]): void {
    for (const movement of movements) {
      this.now = add(this.now, [movement]);
      expect(movement.balance).toBe(this.now.get(movement.product_id));
      expect(movement.balance).toBeGreaterThanOrEqual(0);
    }
    this.movements.push(...movements);
  }
}

const N = 8;
const ids = fc.array(fc.integer({ min: 1, max: N }).map(testId), { minLength: 1, maxLength: 6 });
const step = fc.record({ what: fc.constantFrom("reserve", "release"), ids });

describe("the inventory", () => {
  it("reserves, repeats and cancels in any order: stock is the initial stock plus its movements, and never negative", () => {
    fc.assert(
      fc.property(shelf, orders(N), fc.array(step, { maxLength: 20 }), (initial, all, steps) => {
        const inventory = new Inventory(initial);
        for (const { what, ids: asked } of steps) {
          const before = new Map(inventory.reservations);
          if (what === "reserve") inventory.reserve(asked.flatMap((id) => all.filter((o) => o.order_id === id)));
          else inventory.release(asked);
          expect(inventory.now).toEqual(add(initial, inventory.movements));
          const kept = [...inventory.reservations];
          // All lines or none, reserved once and released once.
          const booked = kept.map(([id]) => [linesOf(inventory.movements, id, "RESERVE"), linesOf(inventory.movements, id, "RELEASE")]);
          expect(booked).toEqual(
            kept.map(([, { state, lines: wanted }]) => [state === "REJECTED" ? [] : wanted, state === "RELEASED" ? wanted : []]),
          );
          // A decision stays, except that a cancel releases a reservation.
          const moved = kept.filter(([id, { state }]) => (before.get(id)?.state ?? state) !== state);
          expect(moved.map(([id, { state }]) => [before.get(id)?.state, state])).toEqual(moved.map(() => ["RESERVED", "RELEASED"]));
        }
      }),
      { numRuns: 200 },
    );
  });

  it("after all orders are cancelled, the stock is as it was, whatever was reserved", () => {
    fc.assert(
      fc.property(shelf, orders(N), fc.array(ids), (initial, all, batches) => {
        const inventory = new Inventory(initial);
        for (const batch of batches) inventory.reserve(batch.flatMap((id) => all.filter((o) => o.order_id === id)));
        inventory.release(all.map((o) => o.order_id));
        inventory.release(all.map((o) => o.order_id));
        expect(inventory.now).toEqual(initial);
      }),
    );
  });
});

describe("reserve", () => {
  it("a batch is decided like its orders one by one in order of arrival, and the given stock isn't modified", () => {
    fc.assert(
      fc.property(shelf, orders(N), (initial, batch) => {
        const given = new Map(initial);
        const together = reserve(batch, given);
        let now = new Map(initial);
        const alone = batch.map((one) => {
          const decision = reserve([one], now);
          now = add(now, decision.movements);
          return decision;
        });
        expect(together.outcomes).toEqual(alone.flatMap((d) => d.outcomes));
        expect(together.movements).toEqual(alone.flatMap((d) => d.movements));
        expect(given).toEqual(initial);
      }),
      { numRuns: 300 },
    );
  });

  it("a later order takes nothing from an earlier one", () => {
    fc.assert(
      fc.property(shelf, orders(N), fc.nat(N), (initial, batch, n) => {
        expect(reserve(batch.slice(0, n), initial).outcomes).toEqual(reserve(batch, initial).outcomes.slice(0, n));
      }),
    );
  });

  it("an order is rejected if and only if a line is short, with each short line and the quantity left", () => {
    fc.assert(
      fc.property(shelf, orders(N), (initial, batch) => {
        const { outcomes, movements } = reserve(batch, initial);
        expect(outcomes.map((o) => o.order_id)).toEqual(batch.map((o) => o.order_id));
        batch.forEach(({ order_id, lines: wanted }, i) => {
          const left = add(
            initial,
            movements.filter((m) => m.order_id < order_id),
          );
          const short = wanted
            .map((l) => ({ product_id: l.product_id, wanted: l.quantity, available: left.get(l.product_id) ?? null }))
            .filter((s) => s.available === null || s.available < s.wanted);
          expect(outcomes[i]).toEqual(
            short.length > 0
              ? { order_id, outcome: "REJECTED", lines_digest: digestOf(wanted), shortages: short }
              : { order_id, outcome: "RESERVED", lines_digest: digestOf(wanted) },
          );
        });
      }),
      { numRuns: 300 },
    );
  });

  it("of two orders for the last unit, the first gets it and the second is rejected with none left", () => {
    const [first, second] = [testId(7), testId(3)];
    const batch = [first, second].map((order_id) => ({ order_id, lines: [line(P1, 1)] }));
    const lines_digest = digestOf([line(P1, 1)]);
    expect(reserve(batch, new Map([[P1, 1]]))).toEqual({
      outcomes: [
        { order_id: first, outcome: "RESERVED", lines_digest },
        { order_id: second, outcome: "REJECTED", lines_digest, shortages: [{ product_id: P1, wanted: 1, available: 0 }] },
      ],
      movements: [{ order_id: first, product_id: P1, kind: "RESERVE", delta: -1, balance: 0 }],
    });
  });

  it("an order whose last line is short leaves the stock of its other lines to the next order", () => {
    const batch = [
      { order_id: testId(1), lines: [line(P1, 2), line(P2, 1), line(UNKNOWN, 1)] },
      { order_id: testId(2), lines: [line(P1, 2), line(P2, 1)] },
    ];
    const { outcomes } = reserve(batch, new Map([[P1, 2], [P2, 1]])); // prettier-ignore
    expect(outcomes).toMatchObject([
      { order_id: testId(1), outcome: "REJECTED", shortages: [{ product_id: UNKNOWN, wanted: 1, available: null }] },
      { order_id: testId(2), outcome: "RESERVED" },
    ]);
  });
});

describe("release and netChanges", () => {
  it("orders release exactly their lines, and each product changes once by their sum", () => {
    fc.assert(
      fc.property(shelf, orders(N), (now, held) => {
        const { outcomes, movements } = release(held, now);
        expect(outcomes).toEqual(held.map(({ order_id, lines }) => ({ order_id, outcome: "RELEASED", lines_digest: digestOf(lines) })));
        for (const { order_id, lines: wanted } of held) expect(linesOf(movements, order_id, "RELEASE")).toEqual(wanted);
        expect(netChanges(movements)).toEqual(add(new Map(), movements));
        for (const [id, quantity] of add(now, movements)) {
          const last = movements.filter((m) => m.product_id === id).at(-1);
          expect(last?.balance ?? now.get(id)).toBe(quantity);
        }
      }),
    );
  });
});

describe("money", () => {
  const PRICE = Money(9_999_999.99);

  it("every price in cents converts to an amount and back exactly", () => {
    // All up to 10,000.00, then every 997th up to 9,999,999.99: a prime, so that every ending occurs.
    const wrong: number[] = [];
    for (let cents = 0; cents <= 999_999_999; cents += cents < 1_000_000 ? 1 : 997)
      if (toCents(fromCents(cents)) !== cents) wrong.push(cents);
    expect(wrong).toEqual([]);
    expect(toCents(fromCents(999_999_999))).toBe(999_999_999);
  });

  it("an amount passes the contract, and JSON prints it with at most two decimals and reads it back", () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 999_999_999 }), (cents) => {
        const amount = fromCents(cents);
        expect(check(PRICE, amount)).toEqual([]);
        expect(JSON.stringify(amount)).toMatch(/^\d+(\.\d{1,2})?$/);
        expect(toCents(Number(JSON.stringify(amount)))).toBe(cents);
      }),
      { numRuns: 2_000 },
    );
  });
});
