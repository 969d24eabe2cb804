import type { Middleware } from "moleculer";
import { ROUTES } from "../../services/api/routes/shop";
import { asSystem, call } from "../../broker/contract";
import type { AuditEntry } from "../../contracts/accounts";
import * as orders from "../../contracts/orders";
import type { Client } from "../../testkit/client";
import { testId } from "../../testkit/ids";
import { ADMIN } from "../../testkit/admin";
import { startShop, type Shop } from "../../testkit/shop";

let shop: Shop;
let admin: Client;
let metas: object[] = [];
const stranger = testId(99_999);

const watching: Middleware = {
  name: "Watching",
  localAction: (next) =>
    function (ctx) {
      metas.push({ ...(ctx.meta as object) });
      return next.call(this, ctx) as unknown;
    },
};

beforeAll(async () => {
  shop = await startShop({ nodes: [["api"], ["users"], ["products"], ["orders"]], broker: { middlewares: [watching] } });
  admin = await shop.client().login(ADMIN.email, ADMIN.password);
});
afterAll(() => shop.stop());

describe("every action behind an admin route", () => {
  const ACTIONS = Object.values(ROUTES).flatMap(({ auth, contract }) => (auth === "admin" ? contract.name : []));
  const params = (name: string): object =>
    ({ "users.find": { email: "a" }, "users.update": { id: testId(1) }, "orders.replay": { id: 1 } })[name] ?? {};
  const OTHERS: [string, object][] = [
    ["users.disable", { id: testId(1) }],
    ["users.enable", { id: testId(1) }],
    ["users.setRole", { id: testId(1), role: "admin" }],
    ["users.record", { action: "product.updated", subject: "1" }],
    ["users.rotateKeys", {}],
    ["orders.list", { all: true }],
    ["orders.list", { user_id: testId(1) }],
    ["products.audit", {}],
    ["products.reservations", { after: testId(0), upto: testId(1) }],
  ];

  it.each([...ACTIONS.map((name) => [name, params(name)] as const), ...OTHERS])("%s %j checks for an admin itself", async (name, what) => {
    const node = shop.node("api");
    const refused = (meta: object) => expect(node.call(name, what, { meta })).rejects;
    await refused({}).toMatchObject({ type: "UNAUTHENTICATED" });
    await refused({ system: "true" }).toMatchObject({ type: "UNAUTHENTICATED" });
    await refused({ user: { id: stranger, role: "user" } }).toMatchObject({ type: "FORBIDDEN" });
    await refused({ user: { id: stranger, role: "user" }, system: true }).toMatchObject({ type: "FORBIDDEN" });
  });

  it("can't be called as the system by a request, whatever its headers and body contain", async () => {
    metas = [];
    const headers = { system: "true", meta: '{"system":true}', "X-Meta-System": "true", "X-System": "true" };
    for (const path of ["/products?system=true&meta.system=true", "/me?$system=true", "/admin/outbox", "/admin/consistency"])
      await admin.get(path, { headers });
    await shop.client().post("/token", { email: "a@b.co", password: "x" }, { headers });
    expect((await admin.post("/token", { email: "a@b.co", password: "x", meta: { system: true } }, { headers })).status).toBe(422);
    await admin.createProduct();
    expect(metas.length).toBeGreaterThan(5);
    expect(metas.filter((meta) => "system" in meta)).toEqual([]);
  });
});

it("the shop itself may read and cancel any order, which the audit log records; on behalf of a user it has only that user's rights", async () => {
  const buyer = shop.client();
  await buyer.signUp();
  const id = String((await buyer.order(await buyer.createProduct({ quantity: 5 }), 1)).body["id"]);
  const node = shop.node("api");
  const asStranger = { meta: { system: true, user: { id: stranger, role: "user" } } };
  await expect(call(node, orders.get, { id }, asStranger)).rejects.toMatchObject({ type: "ORDER_NOT_FOUND" });
  await expect(call(node, orders.cancel, { id }, asStranger)).rejects.toMatchObject({ type: "ORDER_NOT_FOUND" });
  expect(await call(node, orders.get, { id }, asSystem())).toMatchObject({ id });
  expect(await call(node, orders.cancel, { id }, asSystem())).toMatchObject({ id, status: "CANCELLED" });
  const { items } = (await admin.get<{ items: AuditEntry[] }>("/admin/audit-log?action=order.cancelled")).body;
  expect(items).toMatchObject([{ actor: "system", subject: id }]);
});
