import { Losses } from "../chaos/losses";

describe("what a database that fell back may have lost", () => {
  const losses = new Losses();
  Object.assign(losses.open("orders"), { from: 1_000, until: 2_000 });

  it.each([
    ["answered after the backup and asked for before the restore", "orders", { sent: 1_500, answered: 1_600 }, true],
    ["asked for before the backup and answered after it", "orders", { sent: 900, answered: 1_000 }, true],
    ["asked for before the restore and answered after it", "orders", { sent: 2_000, answered: 2_100 }, true],
    ["answered before the backup", "orders", { sent: 800, answered: 999 }, false],
    ["asked for after the restore", "orders", { sent: 2_001, answered: 2_100 }, false],
    ["of another database", "products", { sent: 1_500, answered: 1_600 }, false],
    ["never answered", "orders", {}, false],
  ] as const)("%s", (_what, database, times, mayBeLost) => {
    expect(losses.mayHave(database, times)).toBe(mayBeLost);
  });

  it("is all that comes after the backup, while there is no restore yet", () => {
    const open = new Losses();
    open.open("users");
    expect(open.mayHave("users", { sent: 0, answered: Date.now() + 1_000_000 })).toBe(true);
  });
});
