import { Losses } from "../../../../testkit/load/losses";

describe("a write that a database may have lost when it was set back", () => {
  const losses = new Losses();
  Object.assign(losses.open("orders"), { from: 1_000, until: 2_000 });

  it.each([
    ["sent, and responded to, between the backup and the restore", "orders", { sentAt: 1_500, receivedAt: 1_600 }, true],
    ["sent before the backup, with a response after it", "orders", { sentAt: 900, receivedAt: 1_000 }, true],
    ["sent before the restore, with a response after it", "orders", { sentAt: 2_000, receivedAt: 2_100 }, true],
    ["with a response before the backup", "orders", { sentAt: 800, receivedAt: 999 }, false],
    ["sent after the restore", "orders", { sentAt: 2_001, receivedAt: 2_100 }, false],
    ["of another database", "products", { sentAt: 1_500, receivedAt: 1_600 }, false],
    ["without a response", "orders", {}, false],
  ] as const)("%s", (_what, database, times, mayBeLost) => {
    expect(losses.mayHave(database, times)).toBe(mayBeLost);
  });

  it("is any write after the backup, until the restore", () => {
    const open = new Losses();
    open.open("users");
    expect(open.mayHave("users", { sentAt: 0, receivedAt: Date.now() + 1_000_000 })).toBe(true);
  });
});
