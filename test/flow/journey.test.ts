import { audit } from "../../contracts/orders";
import { asSystem, call } from "../../broker/contract";
import { until } from "../../testkit/until";
import { startShop, type Shop } from "../../testkit/shop";

/** The same journey, however the services are distributed. */
describe.each([
  ["one process", undefined],
  ["a node for each service", [["api"], ["users"], ["products"], ["orders"]] as const],
  ["two gateways, products and orders", [["api"], ["api"], ["users"], ["products"], ["products"], ["orders"], ["orders"]] as const],
])("the journey in %s", (_name, nodes) => {
  let shop: Shop;
  beforeAll(async () => {
    shop = await startShop(nodes && { nodes });
  });
  afterAll(() => shop.stop());

  it("an order is PENDING, then CONFIRMED without another request, and the stock falls from 50 to 47", async () => {
    const client = shop.client();
    const me = await client.signUp();
    const product = await client.createProduct({ name: "Desk lamp", price: 1299.99, quantity: 50 });
    const placed = await client.order(product, 3);
    expect(placed.status).toBe(201);
    expect(placed.headers.get("location")).toBe(`/orders/${placed.body["id"]}`);
    expect(placed.body).toMatchObject({
      user_id: me,
      status: "PENDING",
      total_price: 3899.97,
      items: [{ product_id: product, name: "Desk lamp", unit_price: 1299.99, quantity: 3 }],
      reason: null,
    });
    const order = await client.decided(String(placed.body["id"]));
    expect(order["status"]).toBe("CONFIRMED");
    expect(order["history"].map((entry: { status: string }) => entry.status)).toEqual(["PENDING", "CONFIRMED"]);
    expect(await client.quantityOf(product)).toBe(47);
  });

  it("the stock of a cancelled order is released", async () => {
    const client = shop.client();
    await client.signUp();
    const product = await client.createProduct({ quantity: 10 });
    const id = String((await client.order(product, 4)).body["id"]);
    await client.decided(id);
    expect((await client.post(`/orders/${id}/cancel`)).body["status"]).toBe("CANCELLED");
    await until("the stock is released", async () => (await client.quantityOf(product)) === 10);
  });

  it("200 buyers of 100 units: exactly 100 are confirmed, nothing is left, and the audit finds nothing", async () => {
    const client = shop.client();
    await client.signUp();
    const product = await client.createProduct({ quantity: 100 });
    const placed = await Promise.all(Array.from({ length: 200 }, () => client.buy(product, 1)));
    const accepted = placed.filter((response) => response.status === 201);
    // Orders that arrive when stock is already short are refused at once.
    expect(placed.every(({ status, body }) => status === 201 || (status === 409 && body["code"] === "INSUFFICIENT_STOCK"))).toBe(true);
    const decided = await Promise.all(accepted.map((response) => client.decided(String(response.body["id"]))));
    expect(decided.filter((order) => order["status"] === "CONFIRMED")).toHaveLength(100);
    expect(await client.quantityOf(product)).toBe(0);
    const report = await call(shop.node("api"), audit, {}, asSystem());
    expect(report).toMatchObject({ ok: true, parked: 0 });
  });
});
