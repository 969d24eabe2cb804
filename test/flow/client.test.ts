import { createShop, dataOf, ShopError, type OrderEvent, type Shop as ShopClient, type ShopOptions } from "../../client/src/index";
import { memoryStore, type TokenStore } from "../../client/src/session";
import { ADMIN } from "../../testkit/admin";
import { startShop, type Shop } from "../../testkit/shop";

type Fetch = NonNullable<ShopOptions["fetch"]>;

const BUYER = { email: "client@shop.test", password: "correct horse" };

let shop: Shop;
/** Each request, as `POST /token`. */
let sent: string[];
beforeAll(async () => {
  shop = await startShop({});
  expect((await shop.client().post("/register", BUYER)).status).toBe(201);
});
beforeEach(() => {
  sent = [];
});
afterAll(() => shop.stop());

const noting =
  (fetch: Fetch): Fetch =>
  (request) => {
    sent.push(`${request.method} ${new URL(request.url).pathname}`);
    return fetch(request);
  };
const client = (options: Partial<ShopOptions> = {}): ShopClient =>
  createShop({ url: `${shop.url}/`, ...options, fetch: noting(options.fetch ?? fetch) });

async function buyer(options: Partial<ShopOptions> = {}): Promise<ShopClient> {
  const one = client(options);
  await one.login(BUYER);
  return one;
}

async function createProduct(one: ShopClient, quantity = 5): Promise<string> {
  const product = await dataOf(one.api.POST("/products", { body: { name: "Lamp", price: 9.5, quantity } }));
  return product.id;
}

/** A store with an access token that the shop refuses. */
function withRefusedToken(store: TokenStore): void {
  const tokens = store.read();
  if (tokens === undefined) throw new Error("there is no login");
  store.write({ ...tokens, access_token: tokens.access_token.replace(/.{8}$/, "AAAAAAAA") });
}

it("a buyer logs in, orders, and follows the order until it is cancelled", async () => {
  const one = await buyer();
  const product_id = await createProduct(one);
  const order = await dataOf(one.api.POST("/orders", { body: { items: [{ product_id, quantity: 2 }] } }));
  expect(order).toMatchObject({ status: "PENDING", total_price: 19 });
  const events: OrderEvent[] = [];
  for await (const event of one.follow(order.id)) {
    events.push(event);
    if (event.status === "CONFIRMED") await dataOf(one.api.POST("/orders/{id}/cancel", { params: { path: { id: order.id } } }));
  }
  expect(events.map(({ id, status }) => [id, status])).toEqual([
    [1, "PENDING"],
    [2, "CONFIRMED"],
    [3, "CANCELLED"],
  ]);
});

it("a refused request is a result with the shop's code, or an exception if preferred", async () => {
  const one = await buyer();
  const order = { items: [{ product_id: await createProduct(one, 1), quantity: 2 }] };
  const { error, response } = await one.api.POST("/orders", { body: order });
  expect([response.status, error?.code]).toEqual([409, "INSUFFICIENT_STOCK"]);
  const thrown = await dataOf(one.api.POST("/orders", { body: order })).catch((e: unknown) => e);
  expect(thrown).toBeInstanceOf(ShopError);
  expect(thrown).toMatchObject({ status: 409, code: "INSUFFICIENT_STOCK", problem: { shortages: [{ wanted: 2, available: 1 }] } });
  await expect(client().login({ ...BUYER, password: "wrong password" })).rejects.toMatchObject({ code: "INVALID_CREDENTIALS" });
});

it("requests whose access token is refused share one refresh", async () => {
  const store = memoryStore();
  const one = await buyer({ store });
  withRefusedToken(store);
  sent = [];
  const results = await Promise.all(Array.from({ length: 5 }, () => one.api.GET("/me")));
  expect(results.map(({ data }) => data?.email)).toEqual(Array(5).fill(BUYER.email));
  expect(sent.filter((line) => line === "POST /token/refresh")).toHaveLength(1);
});

it("an access token that is about to expire is refreshed before it is used", async () => {
  const store = memoryStore();
  const one = await buyer({ store });
  store.write({ ...store.read()!, refresh_at: Date.now() });
  sent = [];
  expect((await one.api.GET("/me")).response.status).toBe(200);
  expect(sent).toEqual(["POST /token/refresh", "GET /me"]);
});

it("a refresh that is retried after another tab's refresh does not use up a second refresh token", async () => {
  const store = memoryStore();
  let failures = 0;
  const one = await buyer({
    store,
    fetch: async (request) => {
      if (!request.url.endsWith("/token/refresh") || failures++ > 0) return fetch(request);
      const { body } = await shop.client().post("/token/refresh", { refresh_token: store.read()!.refresh_token });
      store.write({ access_token: String(body["access_token"]), refresh_token: String(body["refresh_token"]), refresh_at: Infinity });
      throw new TypeError("the connection was lost");
    },
  });
  withRefusedToken(store);
  expect((await one.api.GET("/me")).response.status).toBe(200);
  expect(sent.filter((line) => line === "POST /token/refresh")).toHaveLength(1);
});

it("a session that was ended elsewhere ends here, and requests get 401", async () => {
  const store = memoryStore();
  let ends = 0;
  const one = await buyer({ store, onSessionEnd: () => ends++ });
  const { refresh_token } = store.read()!;
  expect((await shop.client().post("/logout", { refresh_token })).status).toBe(204);
  withRefusedToken(store);
  expect((await one.api.GET("/me")).response.status).toBe(401);
  expect([one.isLoggedIn, ends]).toEqual([false, 1]);
});

it("after a logout, the refresh token no longer works", async () => {
  const store = memoryStore();
  const one = await buyer({ store });
  const { refresh_token } = store.read()!;
  await one.logout();
  expect(one.isLoggedIn).toBe(false);
  expect((await shop.client().post("/token/refresh", { refresh_token })).status).toBe(401);
});

it("an order whose response is lost, and then meets an overloaded gateway, is placed once", async () => {
  let attempts = 0;
  const failing: Fetch = async (request) => {
    if (!request.url.endsWith("/orders") || request.method !== "POST" || attempts >= 2) return fetch(request);
    attempts++;
    if (attempts === 2) return new Response(null, { status: 503, headers: { "Retry-After": "0" } });
    await (await fetch(request)).arrayBuffer();
    throw new TypeError("the connection was lost");
  };
  const one = await buyer({ fetch: failing });
  const product_id = await createProduct(one);
  const { response } = await one.api.POST("/orders", { body: { items: [{ product_id, quantity: 1 }] } });
  expect([response.status, response.headers.get("Idempotent-Replayed"), attempts]).toEqual([201, "true", 2]);
});

it("an order whose response is lost, and whose retry is refused since the token has expired, is placed once", async () => {
  let attempts = 0;
  const failing: Fetch = async (request) => {
    if (!request.url.endsWith("/orders") || request.method !== "POST" || ++attempts > 2) return fetch(request);
    if (attempts === 2)
      return fetch(new Request(request, { headers: { ...Object.fromEntries(request.headers), Authorization: "Bearer expired" } }));
    await (await fetch(request)).arrayBuffer();
    throw new TypeError("the connection was lost");
  };
  const one = await buyer({ fetch: failing });
  const product_id = await createProduct(one);
  const { response } = await one.api.POST("/orders", { body: { items: [{ product_id, quantity: 1 }] } });
  expect([response.status, response.headers.get("Idempotent-Replayed"), attempts]).toEqual([201, "true", 3]);
});

it("a request whose token is refused is not repeated in the name of another user who has logged in meanwhile", async () => {
  const store = memoryStore();
  const one: ShopClient = await buyer({
    store,
    fetch: async (request) => {
      const response = await fetch(request);
      if (request.url.endsWith("/me")) await one.login(ADMIN);
      return response;
    },
  });
  withRefusedToken(store);
  expect((await one.api.GET("/me")).response.status).toBe(401);
  expect((await dataOf(one.api.GET("/me"))).email).toBe(ADMIN.email);
});

it("a request that fails for longer than retryForMs fails", async () => {
  const failing: Fetch = () => Promise.reject(new TypeError("there is no network"));
  const one = client({ fetch: failing, retryForMs: 1_000 });
  await expect(one.api.GET("/products")).rejects.toThrow("there is no network");
  expect(sent.length).toBeGreaterThan(1);
  expect(sent.length).toBeLessThan(6);
});

it("a change is not repeated after a lost response, since the repetition could be refused", async () => {
  const losing: Fetch = (request) => (request.method === "PATCH" ? Promise.reject(new TypeError("lost")) : fetch(request));
  const one = await buyer({ fetch: losing });
  const id = await createProduct(one);
  sent = [];
  await expect(one.api.PATCH("/products/{id}", { params: { path: { id } }, body: { price: 1 } })).rejects.toThrow("lost");
  expect(sent).toHaveLength(1);
});

it("a stream that breaks is resumed without a missed or repeated event", async () => {
  let streams = 0;
  const breaking: Fetch = async (request) => {
    const response = await fetch(request);
    if (!request.url.endsWith("/events") || ++streams > 1) return response;
    const { value } = (await response.body!.getReader().read()) as { value: Uint8Array };
    const broken = new ReadableStream<Uint8Array>({
      start: (controller) => controller.enqueue(value.subarray(0, 40)), // ends within the first event
      pull: (controller) => controller.error(new TypeError("the connection was lost")),
    });
    return new Response(broken, { headers: response.headers });
  };
  const one = await buyer({ fetch: breaking });
  const product_id = await createProduct(one);
  const { id } = await dataOf(one.api.POST("/orders", { body: { items: [{ product_id, quantity: 1 }] } }));
  const ids: number[] = [];
  for await (const event of one.follow(id)) {
    ids.push(event.id);
    if (event.status === "CONFIRMED") break;
  }
  expect([ids, streams]).toEqual([[1, 2], 2]);
});

it("following ends when its signal aborts, and an unknown order is an error", async () => {
  const one = await buyer();
  const product_id = await createProduct(one);
  const { id } = await dataOf(one.api.POST("/orders", { body: { items: [{ product_id, quantity: 1 }] } }));
  const stop = new AbortController();
  const following = (async () => {
    for await (const { status } of one.follow(id, { signal: stop.signal })) if (status === "CONFIRMED") stop.abort();
  })();
  await expect(following).rejects.toMatchObject({ name: "AbortError" });
  await expect(one.follow("unknown").next()).rejects.toMatchObject({ code: "ORDER_NOT_FOUND" });
});

it("an admin sees what only admins may see", async () => {
  const one = client();
  await one.login(ADMIN);
  expect((await dataOf(one.api.GET("/admin/consistency"))).ok).toBe(true);
});
