import { Sequelize } from "sequelize";
import { isDatabaseAway, sqlState } from "../../mixins/sql-state";

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
