import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { isFinal } from "../../../contracts/orders";
import { checkHistory, report } from "../../../testkit/history/check";
import { KEPT } from "../../../testkit/history/findings";
import type { Kind, Of, Operation } from "../../../testkit/history/operation";
import { readHistory, writeHistory } from "../../../testkit/history/file";
import { simulate } from "../../history/simulated/clients";
import { order, place, product, quiet, readOrder, readProduct, patch, refuse } from "../testkit/history/operations";

function simulated(seed: number, operations = 5_000): Operation[] {
  const history: Operation[] = [];
  simulate({ seed, operations }, (operation) => history.push(operation));
  return history;
}

it.each(Array.from({ length: 20 }, (_, seed) => seed))("a simulated correct shop has no violations: seed %d", (seed) => {
  const history = simulated(seed);
  expect(report(checkHistory(history))).toEqual([]);
  const unknown = history.filter((operation) => operation.kind !== "quiet" && operation.outcome === "unknown");
  expect(unknown.length).toBeGreaterThan(100); // the network was faulty
});

/** Copies a history by its lines, as in a file, so that no two operations share a part. */
const sound = simulated(99).map((operation) => JSON.stringify(operation));

/** A history that can be changed, and access to its successful operations by kind. */
class Draft {
  readonly history = sound.map((line) => JSON.parse(line) as Operation);

  ok<K extends Kind>(kind: K, holds: (operation: Of<K>) => boolean = () => true): Of<K>[] {
    const isWanted = (operation: Operation): operation is Of<K> =>
      operation.kind === kind && "outcome" in operation && operation.outcome === "ok" && holds(operation as Of<K>);
    return this.history.filter(isWanted);
  }

  /** An operation from the middle of the history. */
  one<K extends Kind>(kind: K, holds?: (operation: Of<K>) => boolean): Of<K> {
    const all = this.ok(kind, holds);
    const one = all[Math.floor(all.length / 2)];
    if (one === undefined) throw new Error(`the history has no such ${kind}`);
    return one;
  }

  get lastQuiet(): Of<"quiet"> {
    const last = this.history.findLast((operation) => operation.kind === "quiet");
    if (last === undefined) throw new Error("the history has no quiet period");
    return last;
  }
}

const changes: [what: string, check: string, change: (draft: Draft) => void][] = [
  ["a version shows another quantity", "products", (draft) => (draft.one("product.adjust").seen!.quantity += 1)],
  ["a quantity is negative", "products", (draft) => (draft.one("product.read").seen!.quantity = -1)],
  [
    "a read is stale",
    "products",
    (draft) => {
      const late = draft.one("product.read", ({ begin, seen }) => begin > draft.lastQuiet.begin && seen!.version > 20);
      late.seen = structuredClone(draft.ok("product.read", ({ product }) => product === late.product)[0]!.seen!);
    },
  ],
  ["a price comes from nowhere", "products", (draft) => (draft.one("product.read").seen!.price = 9_999)],
  [
    "an adjustment is lost",
    "balance",
    (draft) => {
      for (const { seen } of draft.ok("product.read", ({ begin }) => begin > draft.lastQuiet.begin)) seen!.quantity += 100_000;
    },
  ],
  [
    "a confirmed order has no stock",
    "balance",
    (draft) => {
      const { begin } = draft.lastQuiet;
      const lines = [{ product_id: draft.one("product.create").seen!.id, quantity: 5_000 }];
      const placed = place([begin - 2, begin - 1], { id: "unbacked", key: "unbacked", more: { lines } });
      draft.history.push(placed, readOrder([begin + 0.1, begin + 0.2], order("CONFIRMED", { id: "unbacked" })));
    },
  ],
  [
    "two updates of one version succeed",
    "conditional updates",
    (draft) => draft.history.push(structuredClone(draft.one("product.patch", ({ if_match }) => if_match !== undefined))),
  ],
  [
    "412 has no reason",
    "conditional updates",
    ({ history, lastQuiet: { end } }) => {
      history.push({ ...refuse(patch([end - 20, end - 10], 1, 7), 412, "PRECONDITION_FAILED"), product: "idle" });
      history.push(readProduct([end - 40, end - 30], product(7, 1, 1, "idle")), readProduct([end - 5, end - 4], product(7, 1, 1, "idle")));
    },
  ],
  [
    "an order goes back",
    "orders",
    (draft) => {
      const { end, order: id } = draft.one("order.cancel");
      draft.history.push({ ...readOrder([end! + 1, end! + 2], order("CONFIRMED", { id })), admin: true });
    },
  ],
  [
    "an order is never decided",
    "orders",
    (draft) => {
      const { begin, end } = draft.lastQuiet;
      draft.history.push(place([0, 1], { id: "stuck", key: "stuck" }), readOrder([begin + 1, end - 1], order("PENDING", { id: "stuck" })));
    },
  ],
  [
    "an order is lost",
    "own writes",
    (draft) => {
      const read = draft.one("order.read");
      draft.history[draft.history.indexOf(read)] = refuse(read, 404, "ORDER_NOT_FOUND");
    },
  ],
  ["an order is shown to another user", "own writes", (draft) => (draft.one("order.read").user = "stranger")],
  [
    "two keys have one order",
    "keys",
    (draft) => {
      const [one, another] = draft.ok("order.place", ({ replayed }) => replayed === false);
      another!.seen!.id = one!.seen!.id;
    },
  ],
  ["a repeat has another body", "keys", (draft) => (draft.one("order.place", ({ replayed }) => replayed === true).digest = "?")],
  [
    "a key takes other lines",
    "keys",
    (draft) => draft.one("order.place", ({ replayed }) => replayed === true).lines.push({ product_id: "p0000", quantity: 9 }),
  ],
  [
    "a list lacks an order",
    "lists",
    (draft) => draft.one("order.list", ({ pages }) => pages[0]!.items.length === 20).pages[0]!.items.splice(10, 1),
  ],
  [
    "a list has an order twice",
    "lists",
    (draft) => {
      const { items } = draft.one("order.list", ({ pages }) => pages[0]!.items.length > 1).pages[0]!;
      items.push(items[0]!);
    },
  ],
  [
    "a list is not sorted",
    "lists",
    (draft) => draft.one("order.list", ({ pages }) => pages[0]!.items.length > 1).pages[0]!.items.reverse(),
  ],
  [
    "a stream repeats an event",
    "streams",
    (draft) => {
      const { events } = draft.one("order.stream", (stream) => stream.events.length > 1);
      events.push(events.at(-1)!);
    },
  ],
  [
    "a stream misses the final event that was known",
    "streams",
    (draft) => {
      const finals = new Map(draft.ok("order.read", ({ seen }) => isFinal(seen!.status)).map((read) => [read.order, read.end!]));
      draft.one("order.stream", ({ order, begin, events }) => events.length > 1 && (finals.get(order) ?? Infinity) < begin).events.pop();
    },
  ],
];

describe("in a simulated history, the checks find that", () => {
  it.each(changes)("%s", (_, check, change) => {
    const draft = new Draft();
    change(draft);
    expect(checkHistory(draft.history).totals.map((total) => total.check)).toContain(check);
  });
});

it("a report names the operations, and stays short despite many violations", () => {
  const draft = new Draft();
  for (const { seen } of draft.ok("product.read")) seen!.quantity = -1;
  const verdict = checkHistory(draft.history);
  const lines = report(verdict);
  expect(verdict.totals[0]!.total).toBeGreaterThan(500);
  expect(lines.length).toBeLessThan(60);
  expect(verdict.violations.filter(({ check }) => check === "products")).toHaveLength(KEPT);
  expect(lines).toContainEqual(
    expect.stringMatching(
      /^ {4}product.read p00\d\d, by u\d, ok, version \d+, quantity -1, price \d+, through gateway-\d, [\d.]+–[\d.]+ s$/,
    ),
  );
});

describe("a history in a file", () => {
  let folder: string;
  let file: string;
  beforeAll(() => {
    folder = mkdtempSync(path.join(tmpdir(), "history-"));
    file = path.join(folder, "history.jsonl");
  });
  afterAll(() => {
    rmSync(folder, { recursive: true });
  });

  it("is read as it was written", async () => {
    const history = simulated(3, 1_000);
    await writeHistory(file, history);
    expect(await readHistory(file)).toEqual(JSON.parse(JSON.stringify(history)));
  });

  it.each([
    ["no JSON", "{", /^line 2 of .*JSON/],
    ["of no known kind", JSON.stringify({ kind: "order.eat" }), /^line 2 of .*no operation of the kind order.eat/],
    ["without a required field", JSON.stringify({ kind: "quiet", begin: 1 }), /^line 2 of .*'end'/],
    ["with an unknown field", JSON.stringify({ ...quiet(1, 2), pause: true }), /^line 2 of .*additional properties/],
  ])("is refused if a line is %s", async (_, line, message) => {
    writeFileSync(file, `${JSON.stringify(quiet(1, 2))}\n${line}\n`);
    await expect(readHistory(file)).rejects.toThrow(message);
  });
});
