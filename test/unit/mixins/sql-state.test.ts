import { Sequelize } from "sequelize";
import {
  endsConnection,
  isDatabaseUnavailable,
  isRefusal,
  isRolledBack,
  isStatementLost,
  shouldRetryIndividually,
  MEANINGS,
  meaningOf,
  sqlState,
} from "../../../mixins/sql-state";
import { allSqlStates } from "../../../testkit/sqlstates";

const raised = (code: string, more: object = {}): Error => Object.assign(new Error("it failed"), { code, ...more });

describe("a database error", () => {
  it("is not blamed on an order if a stopping node has closed its pool", async () => {
    const sequelize = new Sequelize({ dialect: "postgres", logging: false });
    await sequelize.close();
    const error: unknown = await sequelize.query("select 1").catch((e: unknown) => e);
    expect(error).toBeInstanceOf(Error);
    expect(isDatabaseUnavailable(error)).toBe(true);
    expect(isRefusal(error)).toBe(false);
  });

  it.each([
    ["EPIPE", undefined],
    ["55P03", "55P03"],
  ])("with the code %s has the SQLSTATE %s", (code, state) => {
    expect(sqlState(new Error("it failed", { cause: raised(code) }))).toBe(state);
  });
});

it.each([
  ["57P01", true],
  ["08006", true],
  ["25006", true],
  ["23505", false],
  ["57014", false],
])("after SQLSTATE %s the connection is unusable: %s", (code, ends) => {
  expect(endsConnection(raised(code))).toBe(ends);
  expect(endsConnection(new Error("read ECONNRESET"))).toBe(true);
});

it("every class of PostgreSQL's list has a meaning of its own", () => {
  const classes = [...new Set(allSqlStates().map((code) => code.slice(0, 2)))];
  expect(classes.length).toBeGreaterThan(35);
  expect(classes.filter((one) => MEANINGS[one] === undefined)).toEqual([]);
});

it("an unknown SQLSTATE is transient, and never a refusal", () => {
  for (const code of ["99999", "8C001", "4Z000"]) {
    expect(meaningOf(raised(code))?.kind).toBe("transient");
    expect([isDatabaseUnavailable(raised(code)), isRefusal(raised(code)), shouldRetryIndividually(raised(code))]).toEqual([
      true,
      false,
      true,
    ]);
  }
});

it("only classes 22 and 23, and errors that don't come from the database, count as refusals", () => {
  expect(allSqlStates().filter((code) => isRefusal(raised(code)))).toEqual(allSqlStates().filter((code) => /^2[23]/.test(code)));
  expect(isRefusal(new TypeError("it is undefined"))).toBe(true);
  expect(isRefusal(Object.assign(new Error("read ECONNRESET"), { code: "ECONNRESET" }))).toBe(false);
});

it("a stale cached plan is distinguished from an unsupported feature by the function that raises the error, in any language", () => {
  const stale = raised("0A000", { routine: "RevalidateCachedQuery" });
  expect([isStatementLost(stale), isDatabaseUnavailable(stale), endsConnection(stale)]).toEqual([true, true, true]);
  const unsupported = raised("0A000", { routine: "transformSelectStmt" });
  expect([isStatementLost(unsupported), isDatabaseUnavailable(unsupported), endsConnection(unsupported)]).toEqual([false, false, false]);
});

it("an error that would fail a whole batch is not retried per item, and one that a single item may have caused is", () => {
  const all = ["08006", "25006", "40P01", "42P01", "53100", "55P03", "57014", "57P01"];
  const one = ["22003", "23514", "42601", "58030", "P0001", "XX000", "XX001"];
  expect([...all, ...one].filter((code) => shouldRetryIndividually(raised(code)))).toEqual(one);
});

it("a transaction is retried after a deadlock, but not if it is unknown whether it was committed", () => {
  expect(["40001", "40P01", "40003", "08007"].map((code) => isRolledBack(raised(code)))).toEqual([true, true, false, false]);
});
