import type { Of } from "../../../../testkit/history/operation";
import { cancel, create, found, list, order, place, quiet, readOrder, refuse, stream } from "./operations";

const placed = place([0, 1]);
const other = { id: "o2", key: "k2", created: 2_000 };
const gone = (when: readonly [number, number], user = "ann") => refuse(readOrder(when, order("PENDING"), user), 404, "ORDER_NOT_FOUND");
const cancelled = order("CANCELLED");

describe("a history of orders has no violations if", () => {
  it.each([
    ["a list lacks an order acknowledged while it is read", [placed, place([3, 5], other), list([4, 8], [["o", "PENDING", 1_000]])]],
    [
      "a list of PENDING orders lacks one that was PENDING",
      [placed, readOrder([2, 3], order("PENDING")), list([4, 8], [], { filter: "PENDING" })],
    ],
    [
      "a stream opened late in a quiet period has its own 10 s",
      [
        placed,
        readOrder([2, 3], order("CONFIRMED")),
        quiet(10, 15_000),
        stream([8_000, 15_000], [[8_001, 1, "PENDING"]], { closed: "client" }),
      ],
    ],
    [
      "an order follows its state machine",
      [
        placed,
        readOrder([2, 3], order("PENDING")),
        readOrder([4, 5], order("CONFIRMED")),
        cancel([6, 7], cancelled),
        readOrder([8, 9], cancelled),
      ],
    ],
    ["concurrent reads see it in any order", [placed, readOrder([2, 9], order("CONFIRMED")), readOrder([3, 8], order("PENDING"))]],
    ["a cancel without a response shows later", [placed, cancel([2]), readOrder([9, 10], cancelled)]],
    ["an order was cancelled before the history began", [place([2, 3], { more: { replayed: true } }), readOrder([4, 5], cancelled)]],
    [
      "a rejected order can't be cancelled",
      [placed, readOrder([2, 3], order("REJECTED")), refuse(cancel([4, 5]), 409, "ORDER_NOT_CANCELLABLE")],
    ],
    ["an order is not found before its response", [placed, gone([0.5, 2])]],
    [
      "another user's order is not found, and an admin may read it",
      [placed, gone([2, 3], "bob"), { ...readOrder([4, 5], order("PENDING"), "root"), admin: true }],
    ],
    ["a parked order stays PENDING", [placed, quiet(10, 90), readOrder([20, 30], order("PENDING", { parked: true }))]],
    [
      "a retry gets the first response",
      [
        placed,
        place([2, 3], { more: { replayed: true } }),
        place([4], {}),
        refuse(place([5, 6], { units: 2 }), 422, "IDEMPOTENCY_KEY_REUSED"),
      ],
    ],
    [
      "a key is used again with other lines after a refusal",
      [refuse(place([0, 1]), 409, "INSUFFICIENT_STOCK"), place([2, 3], { units: 2 })],
    ],
    ["two users use the same key", [placed, place([0, 1], { id: "o2", user: "bob" })]],
    [
      "a list has all acknowledged orders, and more",
      [
        placed,
        place([5, 9], other),
        list(
          [4, 8],
          [
            ["o2", "PENDING", 2_000],
            ["o", "PENDING", 1_000],
          ],
        ),
      ],
    ],
    [
      "an incomplete list has only the newest",
      [placed, place([2, 3], other), list([4, 8], [["o2", "PENDING", 2_000]], { complete: false })],
    ],
    [
      "a stream shows the history and each change, and ends",
      [
        placed,
        cancel([4, 5], cancelled),
        stream(
          [2, 8],
          [
            [3, 1, "PENDING"],
            [4, 2, "CONFIRMED"],
            [7, 3, "CANCELLED"],
          ],
        ),
      ],
    ],
    [
      "a stream resumes where it ended",
      [
        placed,
        stream([2, 8], [[3, 1, "PENDING"]], { closed: "cut" }),
        stream([9, 12], [[10, 2, "CONFIRMED"]], { last_event_id: 1, closed: "client" }),
      ],
    ],
    [
      "a stream is cut before its first event",
      [
        placed,
        readOrder([2, 3], order("CONFIRMED")),
        stream([4, 5], [], { closed: "cut" }),
        stream([6, 7], [[7, 1, "PENDING"]], { closed: "cut" }),
      ],
    ],
    [
      "a stream ends before it has sent later changes",
      [placed, stream([2, 8], [[3, 1, "PENDING"]]), readOrder([4, 5], order("CONFIRMED"))],
    ],
    [
      "an open stream has 10 s in a quiet period",
      [placed, readOrder([2, 3], order("CONFIRMED")), quiet(10, 9_000), stream([20, 9_000], [[21, 1, "PENDING"]], { closed: "client" })],
    ],
  ])("%s", (_, history) => {
    expect(found(...history)).toEqual([]);
  });
});

describe("the checks find that", () => {
  it.each([
    [
      "a refused request has taken a key",
      /^keys: .* although all requests had the same lines/,
      [refuse(place([0, 1], { units: 2 }), 409, "INSUFFICIENT_STOCK"), refuse(place([2, 3]), 422, "IDEMPOTENCY_KEY_REUSED")],
    ],
    [
      "an order goes back",
      /^orders: order o is shown PENDING .* after it was PENDING and CONFIRMED/,
      [placed, readOrder([2, 3], order("CONFIRMED")), readOrder([4, 5], order("PENDING", { version: 9 }))],
    ],
    [
      "a cancelled order is confirmed",
      /^orders: order o is shown CONFIRMED/,
      [placed, cancel([2, 3], cancelled), readOrder([4, 5], order("CONFIRMED", { version: 9 }))],
    ],
    [
      "a cancelled order is confirmed in a list",
      /^orders: order o is shown CONFIRMED/,
      [placed, cancel([2, 3], cancelled), list([4, 5], [["o", "CONFIRMED", 1_000]])],
    ],
    [
      "a read lacks a status that a stream has sent",
      /^orders: order o is shown PENDING/,
      [
        placed,
        stream(
          [2, 9],
          [
            [3, 1, "PENDING"],
            [4, 2, "CONFIRMED"],
          ],
          { closed: "client" },
        ),
        readOrder([5, 6], order("PENDING", { version: 9 })),
      ],
    ],
    [
      "a history lacks a status that was seen",
      /^orders: .* with the history PENDING, CANCELLED after/,
      [
        placed,
        readOrder([2, 3], order("CONFIRMED")),
        cancel([4]),
        readOrder([5, 6], order("CANCELLED", { history: ["PENDING", "CANCELLED"], version: 9 })),
      ],
    ],
    [
      "concurrent reads see incompatible statuses",
      /^orders: .* which no order can be/,
      [placed, readOrder([2, 9], order("CONFIRMED")), readOrder([3, 8], order("REJECTED", { version: 9 }))],
    ],
    [
      "a confirmed order can't be cancelled",
      /^orders: order o is shown REJECTED/,
      [placed, readOrder([2, 3], order("CONFIRMED")), refuse(cancel([4, 5]), 409, "ORDER_NOT_CANCELLABLE")],
    ],
    [
      "a history is no path through the state machine",
      /^orders: order o is CONFIRMED with the history PENDING, REJECTED, CONFIRMED/,
      [placed, readOrder([2, 3], order("CONFIRMED", { history: ["PENDING", "REJECTED", "CONFIRMED"] }))],
    ],
    [
      "a version is older than one that was seen",
      /^orders: order o is read in version 2 after version 3/,
      [placed, readOrder([2, 3], order("CONFIRMED", { version: 3 })), readOrder([4, 5], order("CONFIRMED"))],
    ],
    [
      "a version shows two statuses",
      /^orders: version 2 of order o is PENDING, then CONFIRMED/,
      [placed, readOrder([2, 9], order("PENDING", { version: 2 })), readOrder([3, 8], order("CONFIRMED"))],
    ],
    ["a total changes", /^orders: the total of order o was 10, and is 11/, [placed, readOrder([2, 3], order("PENDING", { total: 11 }))]],
    [
      "the response to a cancel has another status",
      /^orders: the response to a cancel of order o has the status CONFIRMED/,
      [placed, cancel([2, 3], order("CONFIRMED"))],
    ],
    [
      "an order is cancelled without a request",
      /^orders: order o is CANCELLED before any cancel request/,
      [placed, readOrder([2, 3], cancelled)],
    ],
    [
      "an order is never decided",
      /^orders: order o is still PENDING in a quiet period/,
      [placed, quiet(10, 90), readOrder([20, 30], order("PENDING"))],
    ],
    ["an order is lost", /^own writes: order o is not found by its owner/, [placed, gone([2, 3])]],
    [
      "an order is shown to another user",
      /^own writes: order o of ann is shown to bob/,
      [placed, readOrder([2, 3], order("PENDING"), "bob")],
    ],
    ["an order is cancelled by another user", /^own writes: order o of ann is shown to bob/, [placed, cancel([2, 3], cancelled, "bob")]],
    [
      "an order is in another user's list",
      /^own writes: order o of ann is shown to bob/,
      [placed, list([2, 3], [["o", "PENDING", 1_000]], { user: "bob" })],
    ],
    ["a key makes two orders", /^keys: key k of ann made order o, then o2/, [placed, place([2, 3], { id: "o2" })]],
    ["a key accepts another body", /^keys: .* gets a 201 for other lines/, [placed, place([2, 3], { units: 2, more: { replayed: true } })]],
    [
      "a retry gets another body",
      /^keys: .* another body than the first 201/,
      [placed, place([2, 3], { more: { replayed: true, digest: "?" } })],
    ],
    ["a replay is not marked", /^keys: .* without Idempotent-Replayed/, [placed, place([2, 3])]],
    [
      "a retry is refused for lack of stock",
      /^keys: .* refused with INSUFFICIENT_STOCK/,
      [placed, refuse(place([2, 3]), 409, "INSUFFICIENT_STOCK")],
    ],
    [
      "a key is refused as reused, and was not",
      /^keys: .* although all requests had the same lines/,
      [refuse(place([2, 3]), 422, "IDEMPOTENCY_KEY_REUSED")],
    ],
    ["an order has two keys", /^keys: order o is the response to two keys/, [placed, place([2, 3], { key: "k2" })]],
    ["a list lacks an order", /^lists: the list of ann lacks order o,/, [placed, list([4, 8], [])]],
    [
      "an incomplete list lacks an order",
      /^lists: the list of ann lacks order o2/,
      [placed, place([2, 3], other), list([4, 8], [["o", "PENDING", 1_000]], { complete: false })],
    ],
    [
      "a list of CANCELLED orders lacks one",
      /^lists: .* lacks order o, which was CANCELLED before/,
      [placed, cancel([2, 3], cancelled), list([4, 8], [], { filter: "CANCELLED" })],
    ],
    [
      "a list has an order twice",
      /^lists: a list has order o twice/,
      [
        placed,
        list(
          [4, 8],
          [
            ["o", "PENDING", 1_000],
            ["o", "PENDING", 1_000],
          ],
        ),
      ],
    ],
    [
      "a list is not sorted",
      /^lists: a list has order o2 behind o/,
      [
        placed,
        place([2, 3], other),
        list(
          [4, 8],
          [
            ["o", "PENDING", 1_000],
            ["o2", "PENDING", 2_000],
          ],
        ),
      ],
    ],
    [
      "a list has orders with another status",
      /^lists: a list of CONFIRMED orders has order o, which is PENDING/,
      [placed, list([4, 8], [["o", "PENDING", 1_000]], { filter: "CONFIRMED" })],
    ],
    [
      "a stream repeats an event",
      /^streams: .* has the positions 1, 2, 2/,
      [
        placed,
        stream(
          [2, 8],
          [
            [3, 1, "PENDING"],
            [4, 2, "CONFIRMED"],
            [5, 2, "CONFIRMED"],
          ],
          { closed: "client" },
        ),
      ],
    ],
    [
      "a stream leaves out an event",
      /^streams: .* has the positions 1, 3/,
      [
        placed,
        cancel([2]),
        stream(
          [2, 8],
          [
            [3, 1, "PENDING"],
            [7, 3, "CANCELLED"],
          ],
        ),
      ],
    ],
    [
      "a stream's statuses are no path through the state machine",
      /^streams: .* sends PENDING, REJECTED, CANCELLED/,
      [
        placed,
        cancel([2]),
        stream(
          [2, 8],
          [
            [3, 1, "PENDING"],
            [4, 2, "REJECTED"],
            [7, 3, "CANCELLED"],
          ],
        ),
      ],
    ],
    [
      "a stream and a history differ",
      /^streams: position 2 .* is CANCELLED, and CONFIRMED/,
      [
        placed,
        cancel([2]),
        readOrder([3, 9], order("CANCELLED", { history: ["PENDING", "CANCELLED"] })),
        stream(
          [2, 8],
          [
            [3, 1, "PENDING"],
            [4, 2, "CONFIRMED"],
          ],
          { closed: "client" },
        ),
      ],
    ],
    [
      "a stream ends without a known status",
      /^streams: .* ended after position 1; PENDING, CONFIRMED was known/,
      [placed, readOrder([2, 3], order("CONFIRMED")), stream([4, 8], [[5, 1, "PENDING"]])],
    ],
    [
      "an open stream never sends a known status",
      /^streams: .* has sent 1 statuses/,
      [placed, readOrder([2, 3], order("CONFIRMED")), quiet(10, 20_000), stream([20, 19_000], [[21, 1, "PENDING"]], { closed: "client" })],
    ],
    [
      "a stream does not end",
      /^streams: .* stays open after REJECTED/,
      [
        placed,
        quiet(10, 20_000),
        stream(
          [20, 19_000],
          [
            [21, 1, "PENDING"],
            [22, 2, "REJECTED"],
          ],
          { closed: "client" },
        ),
      ],
    ],
    [
      "a stream reports its end too early",
      /^streams: .* nothing more will come, and then it is CONFIRMED/,
      [placed, refuse(stream([2, 3], [], { last_event_id: 1 }), 204, ""), readOrder([4, 5], order("CONFIRMED"))],
    ],
  ])("%s", (_, violation, history) => {
    expect(found(...history)).toEqual(expect.arrayContaining([expect.stringMatching(violation)]));
  });
});

describe("a list of products", () => {
  const item = (id: string, created: number, price = 10, quantity = 1) => ({ id, created, price, quantity });
  const one = create([0, 1], 1);
  const two = { ...create([2, 3], 1), seen: { id: "q", version: 1, edits: 1, quantity: 1, price: 10 } };
  const walk = (items: ReturnType<typeof item>[], more: Partial<Of<"product.list">> = {}): Of<"product.list"> => ({
    kind: "product.list",
    begin: 4,
    end: 5,
    outcome: "ok",
    user: "ann",
    pages: [{ begin: 4, end: 5, items }],
    complete: true,
    ...more,
  });

  it.each([
    ["has all, oldest first", [walk([item("p", 1), item("q", 2)])]],
    ["in descending order has the newest first", [walk([item("q", 2), item("p", 1)], { sort: "-created_at" })]],
    ["by price is sorted within a page", [walk([item("q", 2, 9), item("p", 1)], { sort: "price" })]],
    ["of another seller has none of these", [walk([], { seller: "bob" })]],
  ])("%s", (_, history) => {
    expect(found(one, two, ...history)).toEqual([]);
  });

  it.each([
    ["lacks one", /^lists: a list lacks product q/, walk([item("p", 1)])],
    ["is not sorted by age", /^lists: a list has product p behind q/, walk([item("q", 2), item("p", 1)])],
    ["is not sorted by price", /^lists: a list has product p behind q/, walk([item("q", 2, 9), item("p", 1)], { sort: "-price" })],
    ["has another seller's product", /^lists: the products of bob list product p of seller/, walk([item("p", 1)], { seller: "bob" })],
    ["shows a negative quantity", /^products: product q is listed with the quantity -1/, walk([item("p", 1), item("q", 2, 10, -1)])],
  ])("is a violation if it %s", (_, violation, history) => {
    expect(found(one, two, history)).toEqual(expect.arrayContaining([expect.stringMatching(violation)]));
  });
});
