import { NEW, OLD, Traffic } from "../../upgrade/traffic";

describe("the traffic between an old and a new version", () => {
  const both = (traffic: Traffic, what: string, service: string): void => {
    traffic.note(what, `${service}-${OLD}.1`, NEW);
    traffic.note(what, `${service}-${NEW}.2`, OLD);
  };

  it("lacks an action that went in only one direction, or not at all", () => {
    const traffic = new Traffic();
    both(traffic, "orders.get", "api");
    traffic.note("orders.list", `api-${OLD}.1`, NEW);
    const names = new Set(["orders.cancel", "orders.get", "orders.list"]);
    expect(traffic.missing(names, names)).toEqual([
      "orders.cancel never went from old nodes to new nodes",
      "orders.cancel never went from new nodes to old nodes",
      "orders.list never went from new nodes to old nodes",
    ]);
  });

  it("lacks the direction of a service that sent an action only to its own version", () => {
    const traffic = new Traffic();
    both(traffic, "users.record", "orders");
    traffic.note("users.record", `products-${OLD}.1`, OLD);
    const names = new Set(["users.record"]);
    expect(traffic.missing(names, names)).toEqual(["users.record never went from old products to new nodes"]);
  });

  it("requires only that a new action was used, and ignores nodes of neither version", () => {
    const traffic = new Traffic();
    traffic.note("orders.get", "chaos-1732650000000", NEW);
    expect(traffic.missing(new Set(), new Set(["orders.get"]))).toEqual(["orders.get is new, and was never used"]);
    traffic.note("orders.get", `api-${NEW}.1`, NEW);
    expect(traffic.missing(new Set(), new Set(["orders.get"]))).toEqual([]);
  });
});
