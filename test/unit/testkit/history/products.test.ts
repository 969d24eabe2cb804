import { mayAddUp } from "../../../../testkit/history/balance";
import { adjust, cancel, create, found, order, patch, place, product, quiet, readOrder, readProduct, refuse } from "./operations";

const created = create([0, 1], 10);
/** After an order, which is no edit. */
const sold = { ...product(2, 7), edits: 1 };

describe("a history of one product has no violations if", () => {
  it.each([
    ["concurrent reads see versions in any order", [created, readProduct([2, 9], product(2, 9)), readProduct([3, 8], product(1, 10))]],
    ["each write creates its own version", [created, adjust([2, 3], 5, product(2, 15)), patch([4, 5], 12, 2, product(3, 15, 12))]],
    ["a write without a response shows later", [created, patch([2], 12), readProduct([9, 10], product(2, 10, 12))]],
    ["a write without a response never shows", [created, adjust([2], 5), readProduct([9, 10], product(1, 10))]],
    [
      "a read shows the version of a write whose response is still in flight",
      [created, patch([2, 9], 12, 1, product(2, 10, 12)), readProduct([3, 4], product(2, 10, 12))],
    ],
    [
      "412 meets edits that may have gone",
      [created, refuse(patch([2, 5], 12, 1), 412, "PRECONDITION_FAILED"), readProduct([6, 7], product(2, 9))],
    ],
    [
      "412 names edits that are not the current ones",
      [created, refuse(patch([2, 3], 12, 7), 412, "PRECONDITION_FAILED"), readProduct([6, 7], product(1, 10))],
    ],
    [
      "a withdrawal of more than is in stock is refused",
      [created, refuse(adjust([2, 3], -11), 409, "INSUFFICIENT_STOCK"), readProduct([6, 7], product(1, 10))],
    ],
    [
      "of two updates that name the same edits, one gets 412",
      [created, patch([2, 5], 12, 1, product(2, 10, 12)), refuse(patch([2, 5], 13, 1), 412, "PRECONDITION_FAILED")],
    ],
    [
      "an order comes between a read and an update",
      [created, readProduct([2, 3], sold), patch([4, 5], 12, 1, { ...product(3, 7, 12), edits: 2 })],
    ],
  ])("%s", (_, history) => {
    expect(found(...history)).toEqual([]);
  });
});

describe("the checks find that", () => {
  it.each([
    ["a quantity is negative", /^products: .*quantity -1$/, [created, readProduct([2, 3], product(2, -1))]],
    [
      "a version shows two quantities",
      /^products: version 2 .* quantity 9 .* then 8/,
      [created, readProduct([2, 9], product(2, 9)), readProduct([3, 8], product(2, 8))],
    ],
    [
      "a read is stale",
      /^products: .* read in version 1 after version 2/,
      [created, readProduct([2, 3], product(2, 9)), readProduct([4, 5], product(1, 10))],
    ],
    [
      "a write creates a version that was seen before",
      /^products: .* makes version 2, which was seen before/,
      [created, readProduct([2, 3], product(2, 15)), adjust([4, 5], 5, product(2, 15))],
    ],
    [
      "two writes create the same version",
      /^products: two writes/,
      [created, adjust([2, 5], 5, product(2, 15)), adjust([3, 4], 5, product(2, 15))],
    ],
    ["an adjustment changes by another delta", /^products: .* changed by 5 it has 14/, [created, adjust([2, 3], 5, product(2, 14))]],
    ["a PATCH changes the quantity", /^products: .* changed by 0 it has 9/, [created, patch([2, 3], 12, 1, product(2, 9, 12))]],
    [
      "a PATCH does not set the price",
      /^products: a PATCH .* to price 12 returns price 10/,
      [created, patch([2, 3], 12, 1, product(2, 10))],
    ],
    ["a price comes from nowhere", /^products: .* price 11, which no request set/, [created, readProduct([2, 3], product(2, 9, 11))]],
    [
      "a PATCH is undone by a later write",
      /^products: .* price 10, which no request set/,
      [created, patch([2, 3], 12, 1, product(2, 10, 12)), adjust([4, 5], 1, product(3, 11))],
    ],
    [
      "a product is gone",
      /^products: .* not found after it was created/,
      [created, refuse(readProduct([2, 3], product(1, 10)), 404, "PRODUCT_NOT_FOUND")],
    ],
    [
      "a withdrawal of available stock is refused",
      /^products: taking 10 of the 10 units/,
      [created, refuse(adjust([2, 3], -10), 409, "INSUFFICIENT_STOCK"), readProduct([6, 7], product(1, 10))],
    ],
    [
      "a stranger changes a product",
      /^own writes: product p is changed by bob/,
      [created, { ...adjust([2, 3], 5, product(2, 15)), user: "bob" }],
    ],
    [
      "two updates that name the same edits succeed",
      /^conditional updates: two updates/,
      [created, patch([2, 5], 12, 1, product(2, 10, 12)), patch([3, 6], 13, 1, product(3, 10, 13))],
    ],
    [
      "an update skips another one",
      /^conditional updates: .* names edits 1 makes edits 3/,
      [created, patch([2, 5], 12, 1, product(3, 9, 12))],
    ],
    [
      "a stale update succeeds",
      /^conditional updates: .* after edits 2 were seen/,
      [created, readProduct([2, 3], product(2, 9)), patch([4, 5], 12, 1, product(3, 9, 12))],
    ],
    [
      "412 has no reason",
      /^conditional updates: .* although those were the current ones/,
      [created, refuse(patch([2, 3], 12, 1), 412, "PRECONDITION_FAILED"), readProduct([6, 7], product(1, 10))],
    ],
    [
      "412 has an order as its reason",
      /^conditional updates: .* although those were the current ones/,
      [created, refuse(patch([2, 5], 12, 1), 412, "PRECONDITION_FAILED"), readProduct([6, 7], sold)],
    ],
    [
      "412 comes without a condition",
      /^conditional updates: .* without If-Match/,
      [created, refuse(patch([2, 3], 12), 412, "PRECONDITION_FAILED")],
    ],
  ])("%s", (_, violation, history) => {
    expect(found(...history)).toEqual(expect.arrayContaining([expect.stringMatching(violation)]));
  });
});

describe("the balance of a product in a quiet period", () => {
  const ordered = [created, place([2, 3], { units: 4 })];
  const confirmed = [...ordered, readOrder([4, 5], order("CONFIRMED"))];
  const left = (quantity: number) => [quiet(100, 200), readProduct([110, 120], product(9, quantity))];

  it.each([
    ["is the stock that confirmed orders leave", [...confirmed, ...left(6)]],
    ["is restored by a cancel", [...confirmed, cancel([6, 7], order("CANCELLED")), ...left(10)]],
    ["is not changed by a rejected order", [...ordered, readOrder([4, 5], order("REJECTED")), ...left(10)]],
    ["includes adjustments", [...confirmed, adjust([6, 7], -2, product(8, 4)), ...left(4)]],
    ["may include an adjustment without a response", [...confirmed, adjust([6], 3), ...left(9)]],
    ["may lack an adjustment without a response", [...confirmed, adjust([6], 3), ...left(6)]],
    ["may include a cancel without a response", [...confirmed, cancel([6]), ...left(10)]],
    ["may lack a cancel without a response", [...confirmed, cancel([6]), ...left(6)]],
    ["may include an order without a response", [created, place([2], { units: 4 }), ...left(6)]],
    ["may lack an order without a response", [created, place([2], { units: 4 }), ...left(10)]],
    [
      "includes an order once, however often it was sent",
      [created, place([2], { units: 4 }), place([3, 4], { units: 4 }), readOrder([5, 6], order("CONFIRMED")), ...left(6)],
    ],
    [
      "ignores changes during the read",
      [
        ...confirmed,
        ...left(6),
        place([115, 130], { id: "o2", key: "k2", units: 2 }),
        readOrder([131, 132], order("CONFIRMED", { id: "o2" })),
      ],
    ],
  ])("%s", (_, history) => {
    expect(found(...history)).toEqual([]);
  });

  it.each([
    ["lacks units for an order that came after the read", [...confirmed, ...left(4), place([125, 130], { id: "o2", key: "k2", units: 2 })]],
    [
      "has sold twice for an order that was sent twice",
      [created, place([2], { units: 4 }), place([3, 4], { units: 4 }), readOrder([5, 6], order("CONFIRMED")), ...left(2)],
    ],
    [
      "has units that were sold in the period",
      [created, place([101, 102], { units: 4 }), readOrder([103, 104], order("CONFIRMED")), ...left(10)],
    ],
    ["lacks units that no order holds", [...confirmed, ...left(5)]],
    ["has units that were sold", [...confirmed, ...left(10)]],
    ["lacks units of a cancelled order", [...confirmed, cancel([6, 7], order("CANCELLED")), ...left(6)]],
    ["gets back a cancelled order's units twice", [...confirmed, cancel([6, 7], order("CANCELLED")), ...left(14)]],
    ["lacks units for a rejected order", [...ordered, readOrder([4, 5], order("REJECTED")), ...left(6)]],
    ["lacks an adjustment", [...confirmed, adjust([6, 7], -2, product(8, 4)), ...left(6)]],
    ["includes a part of an adjustment of unknown outcome", [...confirmed, adjust([6], 3), ...left(7)]],
    ["includes a refused adjustment", [...confirmed, refuse(adjust([6, 7], -8), 409, "INSUFFICIENT_STOCK"), ...left(-2)]],
  ])("is wrong if it %s", (_, history) => {
    expect(found(...history)).toEqual(expect.arrayContaining([expect.stringMatching(/^balance: product p began with 10 units/)]));
  });

  it.each([
    [[], 0, true],
    [[], 1, false],
    [[3, -4], -1, true],
    [[3, -4], 3, true],
    [[3, -4], 1, false],
    [[2, 2, 2], 6, true],
    [[2, 2, 2], 5, false],
    [[-5, 7, 11], 13, true],
    [[-5, 7, 11], 12, false],
  ])("with possible changes %j, a sum of %d is possible: %s", (changes, sum, may) => {
    expect(mayAddUp(changes, sum)).toBe(may);
  });
});
