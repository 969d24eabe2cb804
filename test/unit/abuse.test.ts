import type { AttackOutcome } from "../abuse/attack";
import { ATTACKS } from "../abuse/attacks";
import { compare, isHarm, missing, violations, worst, type Observation } from "../abuse/verdict";

const QUIET: Observation = {
  baseline: { read: [10], login: [400] },
  attacked: { read: [20], login: [900] },
  failures: {},
  memoryMb: { shop: 512 },
  ended: [],
  errors: [],
  unmet: [],
};

const harm = (kind: string, withoutMs: number, withMs: number): boolean =>
  compare({ [kind]: [withoutMs] }, { [kind]: [withMs] }).some(isHarm);

describe("the p99 of a victim's requests", () => {
  it.each([
    ["less than 250 ms more, though many times as much", 10, 260, false],
    ["less than twice as much, though more than 250 ms more", 600, 1_200, false],
    ["twice as much and 250 ms more: the bounds themselves are allowed", 250, 500, false],
    ["beyond both bounds", 10, 261, true],
    ["beyond both bounds, from a slow start", 600, 1_201, true],
  ])("is %s", (_, withoutMs, withMs, isHarmed) => {
    expect(harm("read", withoutMs, withMs)).toBe(isHarmed);
  });

  it.each([
    ["less than 2 s more, though many times as much", 300, 2_300, false],
    ["less than three times as much, though more than 2 s more", 1_500, 4_500, false],
    ["beyond both bounds", 300, 2_301, true],
  ])("is, of a login, %s", (_, withoutMs, withMs, isHarmed) => {
    expect(harm("login", withoutMs, withMs)).toBe(isHarmed);
    expect(harm("password", withoutMs, withMs)).toBe(isHarmed);
  });

  it("is the 99th percentile: one slow request of 200 is no harm, three are", () => {
    const fast = Array<number>(197).fill(10);
    const of = (...slow: number[]) => compare({ read: [10] }, { read: [...fast, ...slow] });
    expect(of(5_000, 10, 10).some(isHarm)).toBe(false);
    expect(of(5_000, 5_000, 5_000).some(isHarm)).toBe(true);
  });
});

describe("the worst kind of request", () => {
  it("is the kind closest to its own limit, not the slowest one", () => {
    const comparisons = compare({ read: [10], search: [500] }, { read: [400], search: [700] });
    expect(worst(comparisons)).toMatchObject({ kind: "read", withoutMs: 10, withMs: 400 });
    expect(worst([])).toBeUndefined();
  });
});

describe("an observed attack", () => {
  it("is withstood if no victim was harmed", () => {
    expect(violations(QUIET)).toEqual([]);
  });

  it.each<[string, Partial<Observation>, RegExp]>([
    ["a victim's request failed", { failures: { "read: 503": 2 } }, /^2 of the victims' requests failed: read: 503$/],
    ["a p99 is harm", { attacked: { read: [900], login: [500] } }, /^p99 of the victims' read went from 10 to 900 ms$/],
    ["a kind of request was not measured", { attacked: { read: [10] } }, /^the victims sent no login/],
    ["a process grew too large", { memoryMb: { shop: 513 } }, /^shop grew to 513 MB/],
    ["a process exited", { ended: ["api"] }, /^api exited$/],
    ["an ERROR line was logged", { errors: ["boom"] }, /^1 ERROR lines .*boom$/],
    ["the attack expected something else", { unmet: ["2 connections are open"] }, /^2 connections are open$/],
  ])("is not withstood if %s", (_, change, sentence) => {
    const found = violations({ ...QUIET, ...change });
    expect(found).toEqual([expect.stringMatching(sentence)]);
  });

  it("reports a kind whose only requests failed once, as failures", () => {
    const found = violations({ ...QUIET, attacked: { read: [10] }, failures: { "login: 503": 1 } });
    expect(found).toEqual(["1 of the victims' requests failed: login: 503"]);
  });
});

describe("an attack", () => {
  it("did not happen if the attacker got less than the row's minimum per second", () => {
    const least = { "200": 10, connections: 0.1 };
    expect(missing(least, { "200": 50, connections: 1 }, 5)).toEqual([]);
    expect(missing(least, { "200": 50, connections: 1 }, 10)).toEqual([
      "the attacker got 50 × 200, not 100 or more: the attack did not happen",
    ]);
    expect(missing(least, { "401": 5_000 }, 5)).toHaveLength(2);
  });

  it("has a minimum of its own in each row", () => {
    expect(ATTACKS.filter(({ least }) => Math.max(0, ...Object.values(least)) === 0)).toEqual([]);
  });
});

describe("the size of the databases", () => {
  const MIB = 1_024 * 1_024;
  const outcome = (counts: AttackOutcome["counts"], mib: number): AttackOutcome => ({
    counts,
    victims: 1_000,
    victimsWrites: 100,
    lines: [],
    busyCores: 0,
    before: { databaseBytes: 50 * MIB, metricLines: 0 },
    after: { databaseBytes: (50 + mib) * MIB, metricLines: 0 },
  });
  const grown = (row: string, state: AttackOutcome): string[] => ATTACKS.find((one) => one.row === row)?.expect?.(state) ?? ["no such row"];

  it("may grow by a bound per accepted request of the attacker and per write of a victim", () => {
    expect(grown("41a", outcome({ "200": 900 }, 40))).toEqual([]);
    expect(grown("41b", outcome({ "200": 500, "201": 400 }, 4))).toEqual([]);
  });

  it.each([
    ["41a", 70],
    ["41b", 9],
  ])("may not grow by more than row %s's bound per write, however much was read or refused", (row, mib) => {
    expect(grown(row, outcome({ "200": 900, "429": 9_000 }, mib))).toEqual([expect.stringMatching(/^the databases grew by \d+ KiB/)]);
  });
});
