import { request } from "node:http";
import { connect } from "node:net";
import type { Client } from "../../testkit/client";
import { testId } from "../../testkit/ids";
import { Documentation } from "../../testkit/openapi";
import { startShop, type Shop } from "../../testkit/shop";

const BASE_PATH = "/shop";
let shop: Shop;
let user: Client;
let origin: string;

beforeAll(async () => {
  shop = await startShop({ env: { BASE_PATH } });
  origin = new URL(shop.url).origin;
  user = shop.client();
  await user.signUp();
});
afterAll(() => shop.stop());

/** Follows a URL of a response, as a client does: relative to the URL of the request, with the user's token. */
async function follow(url: unknown): Promise<{ status: number; text: string }> {
  const headers = { Authorization: `Bearer ${user.token ?? ""}` };
  const response = await fetch(new URL(String(url), `${shop.url}/any`), { headers, redirect: "error" });
  return { status: response.status, text: await response.text() };
}

/** Sends bytes to the gateway. @returns its response, to the end of the connection */
const raw = (bytes: string): Promise<string> =>
  new Promise((resolve, reject) => {
    const { hostname, port } = new URL(origin);
    let received = "";
    const socket = connect({ host: hostname, port: Number(port) }, () => socket.write(bytes));
    socket.on("data", (chunk) => (received += chunk.toString()));
    socket.on("end", () => resolve(received)).on("error", reject);
  });

describe("behind a path, a URL of a response leads to what it names:", () => {
  it("the Location of an account, a product and an order", async () => {
    const account = await user.post("/register", { email: "path@shop.test", password: "correct horse" });
    const product = await user.post("/products", { name: "Lamp", price: 1, quantity: 5 });
    const order = await user.order(String(product.body["id"]), 1);
    const locations = [account, product, order].map(({ headers }) => headers.get("location"));
    expect(locations).toEqual(["/shop/me", `/shop/products/${product.body["id"]}`, `/shop/orders/${order.body["id"]}`]);
    for (const location of locations) expect([location, (await follow(location)).status]).toEqual([location, 200]);
  });

  it("the Link to the next page", async () => {
    for (const name of ["A", "B"]) await user.createProduct({ name, category: "pages" });
    const { headers } = await user.get("/products?category=pages&sort=name&limit=1");
    const [, next] = /^<([^>]*)>; rel="next"$/.exec(headers.get("link") ?? "") ?? [];
    expect(next).toMatch(/^\/shop\/products\?/);
    const { status, text } = await follow(next);
    expect([status, (JSON.parse(text) as { items: { name: string }[] }).items.map(({ name }) => name)]).toEqual([200, ["B"]]);
  });

  it("the type of a problem, also of a request that is not HTTP", async () => {
    const json = { "Content-Type": "application/json" };
    const problems = [
      await user.get("/nowhere"),
      await user.get("/me", { token: "x" }),
      await user.get(`/orders/${testId(1)}`),
      await user.delete("/me"),
      await user.post("/products", {}),
      await user.request("POST", "/orders", undefined, { raw: "{", headers: json }),
    ].map(({ body }) => body);
    const unreadable = await raw("nonsense\r\n\r\n");
    problems.push(JSON.parse(unreadable.slice(unreadable.indexOf("\r\n\r\n"))) as Record<string, unknown>);
    expect(problems.map(({ status }) => Number(status))).toEqual([404, 401, 404, 405, 422, 400, 400]);
    for (const { type, code } of problems) {
      expect(type).toBe(`/shop/problems/${code}`);
      const { status, text } = await follow(type);
      expect([status, text]).toEqual([200, expect.stringContaining(`<h1>${code}</h1>`)]);
      expect(text).toContain('href="/shop/docs"');
    }
  });

  it("the files of the documentation page, and its document", async () => {
    const { text: page } = await follow("/shop/docs");
    const files = [...page.matchAll(/(?:src|href)="([^"]*)"/g)].map(([, file]) => file!);
    expect(files.length).toBeGreaterThan(3);
    for (const file of files) {
      expect(file).toMatch(/^\/shop\/docs\//);
      expect([file, (await follow(file)).status]).toEqual([file, 200]);
    }
    const { text: script } = await follow("/shop/docs/start.js");
    const [, document] = /url: "([^"]*)"/.exec(script) ?? [];
    expect(JSON.parse((await follow(document)).text)).toMatchObject({ openapi: "3.1.0", servers: [{ url: "/shop" }] });
  });

  it("the document's token URL, and the types in its examples", async () => {
    const { document } = await Documentation.of(shop.url);
    const { components } = document as unknown as {
      components: { securitySchemes: { password: object }; examples: Record<string, { value: { type: string } }> };
    };
    expect(components.securitySchemes.password).toMatchObject({ flows: { password: { tokenUrl: "/shop/token" } } });
    for (const [code, { value }] of Object.entries(components.examples)) expect(value.type).toBe(`/shop/problems/${code}`);
  });

  it("responses are as documented", async () => {
    const documentation = await Documentation.of(shop.url);
    for (const path of ["/products", "/me", "/health/live"]) {
      const response = await user.get(path);
      expect(documentation.differences(`GET ${path}`, response)).toEqual([]);
    }
    expect(documentation.differences("GET /me", await user.get("/me", { token: "x" }))).toEqual([]);
  });
});

it("a request that is refused at once has a type below the base path, too", async () => {
  const busy = await startShop({ nodes: [["api"]], env: { BASE_PATH, RATE_LIMIT: "1" } });
  try {
    const responses = await Promise.all(Array.from({ length: 5 }, () => busy.client().get("/openapi.json")));
    const refused = responses.filter(({ status }) => status === 429);
    expect(refused.length).toBeGreaterThan(0);
    for (const { body } of refused) expect(body["type"]).toBe("/shop/problems/TOO_MANY_REQUESTS");
    const probes = await Promise.all(Array.from({ length: 5 }, () => busy.client().get("/health/live")));
    expect(probes.map(({ status }) => status)).toEqual(Array(5).fill(200)); // no limit applies to them below the base path either
  } finally {
    await busy.stop();
  }
});

it("a product is read below the base path, with GET, HEAD, and If-None-Match → 304", async () => {
  const id = await user.createProduct();
  const { status, headers, body } = await user.get(`/products/${id}`);
  expect([status, body["id"]]).toEqual([200, id]);
  const again = await fetch(`${shop.url}/products/${id}`, { headers: { "If-None-Match": headers.get("etag") ?? "" } });
  expect(again.status).toBe(304);
  expect((await fetch(`${shop.url}/products/${id}`, { method: "HEAD" })).status).toBe(200);
});

it.each(["/", "/products", "/openapi.json", "/health/live", "/shopping/products", "/SHOP/products", "/shop%2Fproducts"])(
  "%s is 404, since it is not below the base path, and the response names the base path",
  async (path) => {
    const response = await fetch(origin + path);
    expect([response.status, await response.json()]).toEqual([
      404,
      expect.objectContaining({ type: "/shop/problems/NOT_FOUND", detail: "all paths begin with /shop/" }),
    ]);
  },
);

it("a product is 404 outside of the base path", async () => {
  const id = await user.createProduct();
  expect((await fetch(`${origin}/products/${id}`)).status).toBe(404);
});

it.each([
  ["GET", "http://shop.example.com/shop/products?limit=1", 200],
  ["GET", "http://shop.example.com/products", 404],
  ["OPTIONS", "*", 204],
  ["OPTIONS", "/shop/products", 204],
  ["GET", "/shop/../shop/products", 404],
])("%s %s is %i behind a path", async (method, path, expected) => {
  const { hostname, port } = new URL(origin);
  const status = await new Promise((resolve, reject) => {
    // Not with fetch, which would change the target.
    request({ hostname, port, method, path }, (res) => {
      res.resume();
      resolve(res.statusCode);
    })
      .on("error", reject)
      .end();
  });
  expect(status).toBe(expected);
});
