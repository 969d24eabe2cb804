import jwt from "jsonwebtoken";
import { ROUTES } from "../../services/api/routes/shop";
import { consoleOf } from "../../scripts/console";
import { until } from "../../testkit/until";
import type { ApiResponse, Client } from "../../testkit/client";
import { timeOfId, UUID_V7 } from "../../testkit/ids";
import { ADMIN } from "../../testkit/admin";
import { startShop, type Shop } from "../../testkit/shop";

let shop: Shop, seller: Client, buyer: Client, admin: Client;
let sellerId: string, buyerId: string;

beforeAll(async () => {
  shop = await startShop();
  [seller, buyer, admin] = [shop.client(), shop.client(), shop.client()];
  [sellerId, buyerId] = await Promise.all([seller.signUp(), buyer.signUp(), admin.login(ADMIN.email, ADMIN.password)]);
});
afterAll(() => shop.stop());

interface Row {
  id: string;
  created_at: string;
}
const idOf = ({ body }: ApiResponse): string => String(body["id"]);
const both = (id: string): string[] => [id, id.toUpperCase()];

describe("a new resource", () => {
  const MADE: [string, () => Promise<string>][] = [
    ["a user", () => shop.client().signUp()],
    ["a product", () => seller.createProduct()],
    ["an order", async () => idOf(await buyer.order(await seller.createProduct(), 1))],
  ];

  it.each(MADE)("%s: its id is a UUIDv7 with the time of its request", async (_what, make) => {
    const before = Date.now();
    const id = await make();
    expect(id).toMatch(UUID_V7);
    expect(timeOfId(id)).toBeGreaterThanOrEqual(before);
    expect(timeOfId(id)).toBeLessThanOrEqual(Date.now());
  });

  it("at the same moment: each order of a batch has its own id, and lists contain each once, newest first", async () => {
    const product = await seller.createProduct({ quantity: 1_000 });
    const client = shop.client();
    const me = await client.signUp();
    const ids = await Promise.all(Array.from({ length: 30 }, async () => idOf(await client.buy(product, 1))));
    expect(new Set(ids).size).toBe(30);
    for (const id of ids) expect(id).toMatch(UUID_V7);
    const lists = new Map([
      ["/orders?limit=7", client],
      [`/orders?limit=7&user_id=${me}`, admin],
    ]);
    for (const [list, who] of lists) {
      const seen: Row[] = [];
      let next: string | undefined = list;
      while (next !== undefined) {
        const page: ApiResponse<{ items: Row[] }> = await who.get<{ items: Row[] }>(next);
        seen.push(...page.body.items);
        next = /^<(.*)>; rel="next"$/.exec(page.headers.get("link") ?? "")?.[1];
      }
      expect(seen.map(({ id }) => id).sort()).toEqual([...ids].sort());
      const keys = seen.map(({ id, created_at }) => `${created_at} ${id}`);
      expect(keys).toEqual([...keys].sort().reverse());
    }
  });

  it("a token: its `sub` is the user's id, also in a refreshed one", async () => {
    const credentials = { email: "sub@shop.test", password: "correct horse battery" };
    const id = idOf(await shop.client().post("/register", credentials));
    const { body: first } = await shop.client().post("/token", credentials);
    const { body: second } = await shop.client().post("/token/refresh", { refresh_token: first["refresh_token"] });
    for (const token of [first, second].map((body) => String(body["access_token"]))) {
      expect(jwt.decode(token)).toMatchObject({ sub: id });
      expect((await shop.client().get("/me", { token })).body["id"]).toBe(id);
    }
  });
});

describe("an id in upper case, or with escapes", () => {
  const LINES = Object.keys(ROUTES).filter((line) => line.includes("/:id") && !line.includes("/outbox/"));
  const BODIES: Record<string, object> = {
    "PATCH /products/:id": { name: "Another lamp" },
    "POST /products/:id/stock": { delta: 1 },
    "PATCH /admin/users/:id": { disabled: false },
  };
  const SPELLINGS: [string, (id: string) => string][] = [
    ["upper case", (id) => id.toUpperCase()],
    ["both cases", (id) => id.replace(/[a-f]/, (letter) => letter.toUpperCase())],
    ["escapes", (id) => id.replaceAll("-", "%2D").replaceAll("7", "%37")],
  ];

  it.each(LINES.flatMap((line) => SPELLINGS.map(([name, spell]) => [line, name, spell] as const)))(
    "%s accepts one in %s, and responds with it in lower case",
    async (line, _name, spell) => {
      const [method = "", path = ""] = line.split(" ");
      const product = await seller.createProduct();
      const order = idOf(await buyer.order(product, 1));
      await buyer.post(`/orders/${order}/cancel`);
      const [who, id] = path.startsWith("/products") ? [seller, product] : path.startsWith("/orders") ? [buyer, order] : [admin, buyerId];
      const headers = { "Last-Event-ID": "9" }; // otherwise a stream would not end
      const { status, body } = await who.request(method, path.replace(":id", spell(id)), BODIES[line], { headers });
      expect([200, 204]).toContain(status);
      if ("id" in body) expect(body["id"]).toBe(id);
    },
  );

  it("in a body is the same product, and the same request", async () => {
    const [a = "", b = ""] = [await seller.createProduct(), await seller.createProduct()].sort();
    const order = (items: [string, number][]) =>
      buyer.post(
        "/orders",
        { items: items.map(([product_id, quantity]) => ({ product_id, quantity })) },
        { headers: { "Idempotency-Key": "cases" } },
      );
    const made = await order([[b.toUpperCase(), 1], [a, 1], [b, 2]]); // prettier-ignore
    expect(made.body["items"]).toMatchObject([{ product_id: a, quantity: 1 }, { product_id: b, quantity: 3 }]); // prettier-ignore
    const again = await order([[a.toUpperCase(), 1], [b, 3]]); // prettier-ignore
    expect([again.status, idOf(again), again.headers.get("idempotent-replayed")]).toEqual([201, idOf(made), "true"]);
    expect(await buyer.decided(idOf(made))).toMatchObject({ status: "CONFIRMED" });
    await until("the stock is reserved", async () => (await buyer.quantityOf(b.toUpperCase())) === 47);
  });

  it("in a query has the same results as in lower case", async () => {
    const product = await seller.createProduct();
    expect((await admin.patch(`/products/${product}`, { price: 5 })).status).toBe(200);
    await buyer.order(product, 1);
    const adminId = idOf(await admin.get("/me"));
    const LISTS: [string, string][] = [
      ["/products?seller_id=", sellerId],
      ["/orders?user_id=", buyerId],
      ["/admin/audit-log?actor=", adminId],
      ["/admin/audit-log?subject=", product],
    ];
    for (const [list, id] of LISTS) {
      const [lower = [], upper] = await Promise.all(
        both(id).map(async (spelt) => (await admin.get<{ items: Row[] }>(`${list}${spelt}`)).body.items.map((row) => row.id)),
      );
      expect([list, lower.length > 0]).toEqual([list, true]);
      expect(upper).toEqual(lower);
    }
  });

  it("in the console is the same, both as a parameter and as the caller", async () => {
    const repl = consoleOf(shop.node("products"));
    const product = await seller.createProduct({ quantity: 50 });
    for (const id of both(product)) expect(await repl.call("products.get", { id })).toMatchObject({ id: product });
    const meta = { user: { id: sellerId.toUpperCase(), role: "user" } };
    expect(await repl.call("products.adjust", { id: product.toUpperCase(), delta: 1 }, { meta })).toMatchObject({ quantity: 51 });
    for (const user of [{ id: 5 }, { id: "5" }, null])
      await expect(repl.call("users.me", {}, { meta: { user } })).rejects.toMatchObject({ type: "UNAUTHENTICATED" });
  });
});
