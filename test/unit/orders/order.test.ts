import fc from "fast-check";
import { MAX_ID, NIL_ID } from "../../../contracts/contract";
import { digestOf, NO_LINES } from "../../../contracts/lines";
import { isFinal, type Line, type Status } from "../../../contracts/orders";
import type { Outcome, Quote, Reservation } from "../../../contracts/products";
import { decodeCursor, encodeCursor, page } from "../../../mixins/keyset";
import { disagreement } from "../../../services/orders/audit";
import {
  after,
  describeShortages,
  hashRequest,
  mergeLines,
  mismatch,
  NEXT,
  place,
  settledEvents,
  total,
} from "../../../services/orders/order";
import { release, reserve } from "../../../services/products/stock";
import { misspelled, testId } from "../../../testkit/ids";

const STATUSES = ["PENDING", "CONFIRMED", "REJECTED", "CANCELLED"] as const;
const OUTCOMES = ["RESERVED", "REJECTED", "RELEASED"] as const;

const line = (product: number, quantity: number): Line => ({ product_id: testId(product), quantity });
const units = fc.integer({ min: 1, max: 10_000 });
const lines = fc.array(fc.record({ product_id: fc.integer({ min: 1, max: 6 }).map(testId), quantity: units }), { minLength: 1 });

describe("mergeLines", () => {
  it("adds up the lines per product, sorts by product, and returns the same for equivalent requests", () => {
    fc.assert(
      fc.property(
        lines.chain((l) => fc.tuple(fc.constant(l), fc.shuffledSubarray(l, { minLength: l.length }))),
        ([requested, shuffled]) => {
          const merged = mergeLines(requested);
          const wanted = new Map<string, number>();
          for (const l of requested) wanted.set(l.product_id, (wanted.get(l.product_id) ?? 0) + l.quantity);
          expect(new Map(merged.map((l) => [l.product_id, l.quantity]))).toEqual(wanted);
          expect(merged.map((l) => l.product_id)).toEqual([...wanted.keys()].sort());
          expect(mergeLines(shuffled)).toEqual(merged);
          expect(mergeLines(merged)).toEqual(merged);
        },
      ),
    );
  });

  it("sorts products as PostgreSQL does, by their bytes", () => {
    const bytes = ({ product_id }: Line) => Buffer.from(product_id.replaceAll("-", ""), "hex");
    fc.assert(
      fc.property(fc.uniqueArray(fc.uuid()), (ids) => {
        const requested = ids.map((product_id) => ({ product_id, quantity: 1 }));
        expect(mergeLines(requested)).toEqual([...requested].sort((a, b) => Buffer.compare(bytes(a), bytes(b))));
      }),
    );
  });
});

describe("hashRequest", () => {
  const items = [line(1, 2)];

  it("changes with every field that a client wrote, and with what is inside of it", () => {
    const contents = [
      { items },
      { items, note: "by the door" },
      { items, to: { zip: "1010", city: "Vienna" } },
      { items, to: { zip: "1010" } },
    ];
    expect(new Set(contents.map(hashRequest)).size).toBe(contents.length);
  });

  it("is the same whatever order the fields have been written in", () => {
    const written = { items, to: { zip: "1010", city: "Vienna" }, note: "by the door" };
    const otherwise = { note: "by the door", to: { city: "Vienna", zip: "1010" }, items: [{ quantity: 2, product_id: testId(1) }] };
    expect(hashRequest(otherwise)).toBe(hashRequest(written));
  });
});

describe("place", () => {
  const quotes = fc
    .array(fc.record({ price_cents: fc.nat(999_999_999), quantity: fc.nat(20_000) }), { minLength: 6, maxLength: 6 })
    .map((all) => all.map((quote, i): Quote => ({ id: testId(i + 1), name: `product ${i + 1}`, ...quote })));

  it("places every line at its quoted name and price, or names every short line; the total is their sum", () => {
    fc.assert(
      fc.property(lines.map(mergeLines), quotes, (wanted, all) => {
        const placement = place(wanted, all);
        const by = (id: string): Quote => all.find((quote) => quote.id === id)!;
        const short = wanted.filter((l) => by(l.product_id).quantity < l.quantity);
        if (!placement.ok) {
          const shortages = short.map((l) => ({
            product_id: l.product_id,
            wanted: l.quantity,
            available: by(l.product_id).quantity,
          }));
          expect(shortages.length).toBeGreaterThan(0);
          expect(placement.refusal).toEqual({ kind: "short", shortages });
          return;
        }
        expect(short).toEqual([]);
        expect(placement.lines).toEqual(
          wanted.map((l) => ({ ...l, name: by(l.product_id).name, unit_price_cents: by(l.product_id).price_cents })),
        );
        expect(placement.total_cents).toBe(total(placement.lines));
        const exact = wanted.reduce((sum, l) => sum + BigInt(by(l.product_id).price_cents) * BigInt(l.quantity), 0n);
        expect(BigInt(placement.total_cents)).toBe(exact);
      }),
    );
  });

  it("unknown products are reported before any shortage, all of them", () => {
    const quoted = [{ id: testId(1), name: "lamp", price_cents: 100, quantity: 0 }];
    const refusal = { kind: "unknown", product_ids: [testId(2), testId(3)] };
    expect(place([line(1, 5), line(2, 1), line(3, 1)], quoted)).toEqual({ ok: false, refusal });
  });

  it("the very last units can be ordered, and one more is a readable shortage", () => {
    const quoted = [{ id: testId(1), name: "lamp", price_cents: 100, quantity: 5 }];
    expect(place([line(1, 5)], quoted)).toMatchObject({ ok: true, total_cents: 500 });
    const placement = place([line(1, 6)], quoted);
    const shortages = [{ product_id: testId(1), wanted: 6, available: 5 }];
    expect(placement).toEqual({ ok: false, refusal: { kind: "short", shortages } });
    expect(describeShortages(shortages)).toBe(`not enough stock: product ${testId(1)}: 6 wanted, 5 left`);
  });

  it("a product that was taken off sale is described as no longer sold, not as sold out", () => {
    const gone = [2, 3].map((product) => ({ product_id: testId(product), wanted: 1, available: null }));
    expect(describeShortages(gone)).toBe(`no longer sold: product ${testId(2)}, product ${testId(3)}`);
    expect(describeShortages([{ product_id: testId(1), wanted: 6, available: 5 }, ...gone])).toBe(
      `not enough stock: product ${testId(1)}: 6 wanted, 5 left; no longer sold: product ${testId(2)}, product ${testId(3)}`,
    );
  });
});

describe("the state machine", () => {
  it.each(STATUSES)("%s is final if nothing may follow", (status) => {
    expect(isFinal(status)).toBe(NEXT[status].length === 0);
  });

  it.each([
    ["PENDING", "RESERVED", "CONFIRMED"],
    ["PENDING", "REJECTED", "REJECTED"],
    ["CONFIRMED", "RESERVED", "CONFIRMED"],
    ["REJECTED", "REJECTED", "REJECTED"],
    ...OUTCOMES.map((outcome) => ["CANCELLED", outcome, "CANCELLED"] as const),
  ] as const)("%s that gets the outcome %s is %s, whether it gets it once or twice", (before, outcome, then) => {
    expect(after(before, outcome)).toBe(then);
    expect(after(then, outcome)).toBe(then);
  });

  it.each([
    ["PENDING", ["RELEASED"]],
    ["CONFIRMED", ["REJECTED", "RELEASED"]],
    ["REJECTED", ["RESERVED", "RELEASED"]],
    ["CANCELLED", []],
  ] as const)("these outcomes don't fit %s: %j", (status, unfit) => {
    expect(OUTCOMES.filter((outcome) => after(status, outcome) === undefined)).toEqual(
      OUTCOMES.filter((one) => (unfit as readonly string[]).includes(one)),
    );
  });

  it.each([
    ["PENDING", "CANCELLED"],
    ["CONFIRMED", "CANCELLED"],
    ["CANCELLED", "CANCELLED"],
    ["REJECTED", undefined],
  ] as const)("a cancel of %s gives %s", (before, then) => {
    expect(after(before, "cancel")).toBe(then);
  });

  it("RESERVED settles only order.created, since a cancel is still republished; REJECTED and RELEASED settle every row", () => {
    const both = ["order.created", "order.cancelled"];
    expect(OUTCOMES.map(settledEvents)).toEqual([["order.created"], both, both]);
  });

  it("outcomes and cancels in any order, late and repeated: only transitions of NEXT, and a decision stays, except for a cancel", () => {
    fc.assert(
      fc.property(fc.array(fc.constantFrom(...OUTCOMES, "cancel" as const)), (inputs) => {
        let status: Status = "PENDING";
        for (const what of inputs) {
          const before: Status = status;
          status = after(before, what) ?? before;
          if (status !== before) expect(NEXT[before]).toContain(status);
          if (before !== "PENDING" && what !== "cancel") expect(status).toBe(before);
        }
      }),
    );
  });
});

describe("mismatch", () => {
  const lines_digest = digestOf([line(1, 2), line(2, 1)]);
  const order = (status: Status) => ({ status, lines_digest });
  const reply = (outcome: Outcome["outcome"], of = lines_digest): Outcome =>
    outcome === "REJECTED"
      ? { order_id: testId(1), outcome, lines_digest: of, shortages: [] }
      : { order_id: testId(1), outcome, lines_digest: of };
  const FITTING = [
    "PENDING RESERVED",
    "PENDING REJECTED",
    "CONFIRMED RESERVED",
    "REJECTED REJECTED",
    "CANCELLED RESERVED",
    "CANCELLED REJECTED",
    "CANCELLED RELEASED",
  ];

  it.each(STATUSES.flatMap((status) => OUTCOMES.map((outcome) => [status, outcome] as const)))(
    "a %s order accepts %s if the state machine allows it, and only for its own lines",
    (status, outcome) => {
      expect(mismatch(order(status), reply(outcome)) === undefined).toBe(FITTING.includes(`${status} ${outcome}`));
      expect(mismatch(order(status), reply(outcome, digestOf([line(1, 2)])))).toMatch(/^the reservation is R/);
    },
  );

  it("a tombstone, which has no lines, fits only a cancelled order", () => {
    expect(mismatch(order("CANCELLED"), reply("RELEASED", NO_LINES))).toBeUndefined();
    expect(mismatch(order("PENDING"), reply("RELEASED", NO_LINES))).toBe("the reservation is RELEASED but the order is PENDING");
    expect(mismatch(order("PENDING"), reply("RESERVED", NO_LINES))).toBe("the reservation is RESERVED for other lines");
  });

  it("a digest covers products and units, whatever the order of the lines", () => {
    expect(digestOf([line(2, 1), line(1, 2)])).toBe(lines_digest);
    for (const other of [[], [line(1, 2)], [line(1, 2), line(2, 2)], [line(1, 2), line(3, 1)], [line(1, 21), line(2, 1)]])
      expect(digestOf(other)).not.toBe(lines_digest);
  });
});

/**
 * Both decisions connected by a transport that loses, repeats and reorders messages: one order, its two outbox rows, the stock
 * and the stored outcome, as their databases keep them.
 */
class OneOrder {
  readonly id = testId(1);
  status: Status = "PENDING";
  readonly outbox = new Map<string, "PENDING" | "SETTLED">([["order.created", "PENDING"]]);
  readonly wire: (() => void)[] = [];
  reservation: Reservation | undefined;
  readonly history: Status[] = ["PENDING"];

  constructor(
    readonly wanted: Line[],
    public shelf: Map<string, number>,
  ) {}

  cancel(): void {
    const cancelled = after(this.status, "cancel");
    if (cancelled === undefined || cancelled === this.status) return;
    this.move(cancelled);
    this.outbox.set("order.cancelled", "PENDING");
  }

  relay(): void {
    for (const [event, state] of this.outbox) if (state === "PENDING") this.wire.push(() => this.ask(event));
  }

  private ask(event: string): void {
    if (this.reservation === undefined) {
      const decision = reserve([{ order_id: this.id, lines: this.wanted }], this.shelf);
      if (event === "order.cancelled") this.reservation = { order_id: this.id, state: "RELEASED", lines: [] };
      else this.book(decision.outcomes[0]!.outcome, this.wanted, decision.movements);
    } else if (event === "order.cancelled" && this.reservation.state === "RESERVED") {
      const { lines: held } = this.reservation;
      this.book("RELEASED", held, release([{ order_id: this.id, lines: held }], this.shelf).movements);
    }
    const { state, lines: held } = this.reservation!;
    this.wire.push(() => this.receive(state, held));
  }

  private book(state: Outcome["outcome"], held: Line[], movements: { product_id: string; balance: number }[]): void {
    this.reservation = { order_id: this.id, state, lines: held };
    for (const { product_id, balance } of movements) this.shelf.set(product_id, balance);
  }

  private receive(outcome: Outcome["outcome"], held: Line[]): void {
    const lines_digest = digestOf(held);
    const reply = outcome === "REJECTED" ? { outcome, shortages: [] } : { outcome };
    expect(
      mismatch({ status: this.status, lines_digest: digestOf(this.wanted) }, { order_id: this.id, lines_digest, ...reply }),
    ).toBeUndefined();
    this.move(after(this.status, outcome) ?? this.status);
    for (const event of settledEvents(outcome)) if (this.outbox.has(event)) this.outbox.set(event, "SETTLED");
  }

  private move(status: Status): void {
    if (status !== this.status) this.history.push(status);
    this.status = status;
  }
}

describe("an order and its stock over a lossy transport", () => {
  const fault = fc.record({
    what: fc.constantFrom("relay", "deliver", "deliver", "repeat", "lose", "cancel"),
    which: fc.nat(),
  });

  it("once every outbox row has its reply, both sides agree, all transitions were legal, and only a confirmed order holds stock", () => {
    fc.assert(
      fc.property(fc.array(fault, { maxLength: 30 }), fc.integer({ min: 0, max: 3 }), (faults, stock) => {
        const one = new OneOrder([line(1, 2), line(2, 1)], new Map([[testId(1), stock], [testId(2), 5]])); // prettier-ignore
        for (const { what, which } of faults) {
          const i = one.wire.length > 0 ? which % one.wire.length : 0;
          if (what === "relay") one.relay();
          else if (what === "cancel") one.cancel();
          else if (what === "repeat") one.wire[i]?.();
          else one.wire.splice(i, 1).forEach((message) => what === "deliver" && message());
        }
        const drain = () => {
          for (let message = one.wire.pop(); message; message = one.wire.pop()) message();
        };
        for (let i = 0; [...one.outbox.values()].includes("PENDING"); i++) {
          expect(i).toBeLessThan(5); // each round gets replies
          one.relay();
          drain();
        }
        drain();
        const audited = { id: one.id, status: one.status, outbox: null, lines: `${testId(1)}:2,${testId(2)}:1` };
        expect(disagreement(audited, one.reservation)).toBeUndefined();
        one.history.slice(1).forEach((to, i) => expect(NEXT[one.history[i]!]).toContain(to));
        const held = one.status === "CONFIRMED" ? 1 : 0;
        expect([...one.shelf]).toEqual([[testId(1), stock - 2 * held], [testId(2), 5 - held]]); // prettier-ignore
      }),
      { numRuns: 2_000 },
    );
  });
});

describe("disagreement", () => {
  const audited = (status: Status, over = {}) => ({
    id: testId(1),
    status,
    outbox: null,
    lines: `${testId(9)}:2,${testId(10)}:4`,
    ...over,
  });
  const held = (state: Outcome["outcome"], of = [line(9, 2), line(10, 4)]): Reservation => ({ order_id: testId(1), state, lines: of });
  const AGREEING = [
    "CONFIRMED RESERVED",
    "REJECTED REJECTED",
    "REJECTED RELEASED",
    "CANCELLED RELEASED",
    "CANCELLED REJECTED",
    "CANCELLED none",
  ];

  it.each(STATUSES.flatMap((status) => [...OUTCOMES, "none" as const].map((state) => [status, state] as const)))(
    "%s and %s agree only as the rules define, and are not compared while a reply is pending",
    (status, state) => {
      const reservation = state === "none" ? undefined : held(state);
      const said = disagreement(audited(status), reservation);
      expect(said === undefined).toBe(AGREEING.includes(`${status} ${state}`));
      if (said !== undefined) expect(said).toBe(`${status}, its reservation ${state}`);
      expect(disagreement(audited(status, { outbox: "PENDING" }), reservation)).toBeUndefined();
    },
  );

  const PARKED = [...AGREEING, "PENDING none", "PENDING RESERVED", "PENDING REJECTED", "CANCELLED RESERVED"];
  it.each(STATUSES.flatMap((status) => [...OUTCOMES, "none" as const].map((state) => [status, state] as const)))(
    "%s and %s of a parked order agree if a late reply would fit, for its own lines",
    (status, state) => {
      const parked = audited(status, { outbox: "PARKED" });
      const isFitting = PARKED.includes(`${status} ${state}`);
      expect(disagreement(parked, state === "none" ? undefined : held(state)) === undefined).toBe(isFitting);
      if (state !== "none") expect(disagreement(parked, held(state, [line(9, 2)]))).toEqual(expect.any(String));
    },
  );

  it("with other units, another product or another number of lines, the lines differ; their order does not matter", () => {
    const differ = "its lines and those of its reservation differ";
    const cases = [[line(9, 2), line(10, 5)], [line(9, 2), line(8, 4)], [line(9, 2)], [line(9, 2), line(10, 4), line(11, 1)], []]; // prettier-ignore
    for (const of of cases) expect(disagreement(audited("CONFIRMED"), held("RESERVED", of))).toBe(differ);
    expect(disagreement(audited("CONFIRMED"), held("RESERVED", [line(10, 4), line(9, 2)]))).toBeUndefined();
  });

  it("a tombstone without lines is valid for a cancelled order, but a released reservation must have its order's lines", () => {
    expect(disagreement(audited("CANCELLED"), held("RELEASED", []))).toBeUndefined();
    expect(disagreement(audited("CANCELLED"), held("RELEASED", [line(9, 2)]))).toBe("its lines and those of its reservation differ");
  });
});

describe("keyset paging", () => {
  const value = fc.oneof(
    fc.maxSafeInteger(),
    fc.string({ unit: "binary" }).filter((text) => !text.includes("\0")),
  );
  const BAD_REQUEST = expect.objectContaining({ type: "BAD_REQUEST" }) as Error;

  it("a cursor returns its values; for another list, or as other types, it is a bad request", () => {
    fc.assert(
      fc.property(fc.string(), fc.array(value, { minLength: 1, maxLength: 3 }), (list, values) => {
        const cursor = encodeCursor(list, values);
        expect(cursor).toMatch(/^[\w-]+$/);
        const types = values.map((v) => (typeof v === "string" ? "text" : "number"));
        expect(decodeCursor(list, cursor, types)).toEqual(values.map((v) => (v === 0 ? 0 : v))); // JSON has no -0
        const others = types.map((type) => (type === "text" ? ("number" as const) : ("text" as const)));
        for (const wrong of [others, types.slice(1), [...types, "number" as const]])
          expect(() => decodeCursor(list, cursor, wrong)).toThrow(BAD_REQUEST);
        expect(() => decodeCursor(`${list}:other`, cursor, types)).toThrow(BAD_REQUEST);
      }),
    );
  });

  it("any text of a client is a cursor or a bad request, never another error", () => {
    const made = fc.oneof(
      fc.string(),
      fc.json(),
      fc.jsonValue().map((v) => JSON.stringify(["list", v])),
    );
    fc.assert(
      fc.property(made, fc.boolean(), (text, encoded) => {
        const cursor = encoded ? Buffer.from(text).toString("base64url") : text;
        try {
          const [only] = decodeCursor("list", cursor, ["number"]);
          expect(Number.isSafeInteger(only)).toBe(true);
        } catch (error) {
          expect(error).toEqual(BAD_REQUEST);
        }
      }),
      { numRuns: 500 },
    );
  });

  it.each([1.5, 2 ** 53, "a\0b", null, true, [1]])("a cursor with %j as its sort value is a bad request", (bad) => {
    const cursor = Buffer.from(JSON.stringify(["list", bad])).toString("base64url");
    expect(() => decodeCursor("list", cursor, ["number"])).toThrow(BAD_REQUEST);
    expect(() => decodeCursor("list", cursor, ["text"])).toThrow(BAD_REQUEST);
  });

  it("a cursor's ids and times are valid for the database; no other value of a client reaches it", () => {
    const id = testId(1);
    const isRead = (kind: "id" | "time", value: string | number) => {
      try {
        return decodeCursor("list", encodeCursor("list", [value]), [kind])[0] === value;
      } catch (error) {
        expect(error).toEqual(BAD_REQUEST);
        return false;
      }
    };
    for (const good of [id, id.toUpperCase(), NIL_ID, MAX_ID]) expect([good, isRead("id", good)]).toEqual([good, true]);
    for (const bad of [...misspelled(id), 1]) expect([bad, isRead("id", bad)]).toEqual([bad, false]);
    for (const good of [0, Date.now(), 8.64e15]) expect([good, isRead("time", good)]).toEqual([good, true]);
    for (const bad of [-1, 1.5, 8.64e15 + 1, 2 ** 53, "0", "infinity"]) expect([bad, isRead("time", bad)]).toEqual([bad, false]);
  });

  it("page after page returns every row once, in order, and only the last page has no cursor", () => {
    fc.assert(
      fc.property(fc.uniqueArray(fc.nat(1_000), { maxLength: 40 }), fc.integer({ min: 1, max: 10 }), (ids, limit) => {
        const rows = ids.sort((a, b) => a - b);
        const seen: number[] = [];
        for (let after: string | null | undefined; after !== null;) {
          const [from] = after === undefined ? [-1] : decodeCursor("rows", after, ["number"]);
          const found = rows.filter((id) => id > Number(from)).slice(0, limit + 1);
          const { items, next_cursor } = page(
            found,
            limit,
            (id) => id,
            (last) => encodeCursor("rows", [last]),
          );
          expect(items.length).toBe(Math.min(limit, rows.length - seen.length));
          seen.push(...items);
          expect(next_cursor === null).toBe(seen.length === rows.length);
          after = next_cursor;
        }
        expect(seen).toEqual(rows);
      }),
    );
  });
});
