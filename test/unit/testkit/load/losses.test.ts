import { Losses } from "../../../../testkit/load/losses";

describe("a write that a database may have lost when it was set back", () => {
  const losses = new Losses();
  Object.assign(losses.open("orders"), { from: 1_000, until: 2_000 });

  it.each([
    ["sent and answered between the backup and the restore", "orders", { sent: 1_500, answered: 1_600 }, true],
    ["sent before the backup, with a response after it", "orders", { sent: 900, answered: 1_000 }, true],
    ["sent before the restore, with a response after it", "orders", { sent: 2_000, answered: 2_100 }, true],
    ["with a response before the backup", "orders", { sent: 800, answered: 999 }, false],
    ["sent after the restore", "orders", { sent: 2_001, answered: 2_100 }, false],
    ["of another database", "products", { sent: 1_500, answered: 1_600 }, false],
    ["without a response", "orders", {}, false],
  ] as const)("%s", (_what, database, times, mayBeLost) => {
    expect(losses.mayHave(database, times)).toBe(mayBeLost);
  });

  it("is any write after the backup, until the restore", () => {
    const open = new Losses();
    open.open("users");
    expect(open.mayHave("users", { sent: 0, answered: Date.now() + 1_000_000 })).toBe(true);
  });
});
