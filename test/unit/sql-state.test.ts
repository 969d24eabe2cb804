import { Sequelize } from "sequelize";
import { endsConnection, isDatabaseAway, sqlState } from "../../mixins/sql-state";

describe("an error of the database", () => {
  it("is no order's own fault where the node has closed its pool since it stops", async () => {
    const sequelize = new Sequelize({ dialect: "postgres", logging: false });
    await sequelize.close();
    const error: unknown = await sequelize.query("select 1").catch((e: unknown) => e);
    expect(error).toBeInstanceOf(Error);
    expect(isDatabaseAway(error)).toBe(true);
  });

  it.each([
    ["EPIPE", undefined],
    ["55P03", "55P03"],
  ])("with the code %s has the SQLSTATE %s", (code, state) => {
    expect(sqlState(new Error("it failed", { cause: Object.assign(new Error("it was so"), { code }) }))).toBe(state);
  });
});

it.each([
  ["57P01", true],
  ["08006", true],
  ["23505", false],
  ["57014", false],
])("after SQLSTATE %s a connection is of no more use: %s", (code, ends) => {
  expect(endsConnection(Object.assign(new Error("it"), { code }))).toBe(ends);
  expect(endsConnection(new Error("read ECONNRESET"))).toBe(true);
});
