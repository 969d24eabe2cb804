import { Snapshot } from "../../contracts/operations";
import { check } from "../../broker/validator";
import { ADMIN } from "../../testkit/admin";
import { Client } from "../../testkit/client";
import { startShop, urlOf, type Shop } from "../../testkit/shop";

let shop: Shop, admin: Client, buyer: Client, otherGateway: Client;
beforeAll(async () => {
  shop = await startShop({ nodes: [["api"], ["api"], ["users"], ["products"], ["orders"]] });
  admin = shop.client();
  await admin.login(ADMIN.email, ADMIN.password);
  buyer = shop.client();
  await buyer.signUp();
  otherGateway = new Client(urlOf(shop.nodes[1]!));
});
afterAll(() => shop.stop());

/** Reads snapshots until one fulfils a condition. @returns it */
async function snapshotThat(fulfils: (snapshot: Snapshot) => boolean): Promise<Snapshot> {
  const headers = { Authorization: `Bearer ${admin.token}` };
  const response = await fetch(`${admin.url}/admin/events`, { headers, signal: AbortSignal.timeout(15_000) });
  expect([response.status, response.headers.get("content-type")]).toEqual([200, "text/event-stream"]);
  let text = "";
  for await (const chunk of response.body!) {
    text += Buffer.from(chunk).toString();
    for (const [, data] of text.matchAll(/^event: snapshot\ndata: (.*)\n\n/gm)) {
      const snapshot = JSON.parse(data!) as Snapshot;
      expect(check(Snapshot, snapshot)).toEqual([]);
      if (fulfils(snapshot)) return snapshot; // which closes the connection
    }
  }
  throw new Error(`the stream ended: ${text.slice(-500)}`);
}

it("an admin sees the nodes, and the orders, requests and sales of the last seconds", async () => {
  const product = await buyer.createProduct({ name: "Popular lamp", quantity: 10 });
  const { body } = await buyer.order(product, 3);
  expect(await buyer.decided(String(body["id"]))).toMatchObject({ status: "CONFIRMED" });
  const snapshot = await snapshotThat(({ orders }) => (orders?.per_second.CONFIRMED ?? 0) > 0);
  expect(snapshot.nodes.map(({ services }) => services.join()).toSorted()).toEqual(["api", "api", "orders", "products", "users"]);
  expect(snapshot.orders).toMatchObject({ newest: { CONFIRMED: 1 }, outbox: { pending: 0, parked: 0, oldest_seconds: 0 } });
  expect(snapshot.busiest).toEqual([{ product_id: product, name: "Popular lamp", quantity: 7, sold: 3 }]);
});

it("requests at another gateway count as well", async () => {
  const load = setInterval(() => void otherGateway.get("/products"), 20);
  try {
    expect(await snapshotThat(({ requests }) => (requests?.per_second ?? 0) > 5)).toMatchObject({
      requests: { p50_ms: expect.any(Number) },
    });
  } finally {
    clearInterval(load);
  }
});

it("what does not respond is null, and the rest is shown", async () => {
  await shop.node("orders").stop();
  expect(await snapshotThat((snapshot) => snapshot.orders === null)).toMatchObject({ orders: null, busiest: expect.any(Array) });
});

it("a stream is for admins, takes no query, and ends when its admin logs out", async () => {
  expect((await buyer.get("/admin/events")).status).toBe(403);
  expect((await shop.client().get("/admin/events")).status).toBe(401);
  expect((await admin.get("/admin/events?every=1")).status).toBe(400);
  const { body: tokens } = await admin.post("/token", ADMIN);
  const headers = { Authorization: `Bearer ${String(tokens["access_token"])}` };
  const response = await fetch(`${admin.url}/admin/events`, { headers, signal: AbortSignal.timeout(10_000) });
  const ended = response.text();
  expect((await admin.post("/logout", { refresh_token: tokens["refresh_token"] })).status).toBe(204);
  expect(await ended).toContain("event: snapshot");
});
