import type { IncomingMessage } from "node:http";
import type { Exchange } from "../../../services/api/connections/exchange";
import { HOT_READ, hotProductId, serveHotRead } from "../../../services/api/hot-read";
import type { Perform } from "../../../services/api/routing/route";
import { testId } from "../../../testkit/ids";

const ID = testId(7);
const request = (change: object = {}): IncomingMessage =>
  ({ method: "GET", url: `/products/${ID}`, headers: { host: "a" }, ...change }) as unknown as IncomingMessage;

it.each([
  ["plain", {}],
  ["with a token", { headers: { host: "a", authorization: "Bearer a.b.c" } }],
  ["with an ETag", { headers: { host: "a", "if-none-match": '"1-1"' } }],
])("a GET of a product, %s, takes the fast path", (_what, change) => {
  expect(hotProductId(request(change))).toBe(ID);
});

it("an id in upper case takes the fast path in lower case", () => {
  const id = "017F22E2-79B0-7CC3-98C4-DC0C0C07398F";
  expect(hotProductId(request({ url: `/products/${id}` }))).toBe(id.toLowerCase());
});

it.each([
  ["HEAD", { method: "HEAD" }],
  ["PATCH", { method: "PATCH" }],
  ["another resource", { url: `/orders/${ID}` }],
  ["an invalid id", { url: `/products/${"x".repeat(ID.length)}` }],
  ["a query", { url: `/products/${ID}?a=b` }],
  ["a slash at the end", { url: `/products/${ID}/` }],
  ["another origin", { headers: { host: "a", origin: "https://shop.example.com" } }],
  ["no Host header", { headers: {} }],
])("a request with %s takes the route", (_what, change) => {
  expect(hotProductId(request(change))).toBeUndefined();
});

it.each([
  [200, {}],
  [304, { "if-none-match": '"3-7"' }],
])("the fast path has the response of the route, and counts as the same route: %i", async (status, headers) => {
  const send = jest.fn();
  const batched = { product: jest.fn((id: string) => Promise.resolve({ id, edits: 3, version: 7 })) };
  const admission = { run: (_client: unknown, work: () => unknown) => work() };
  const exchange = { req: request({ headers }), res: {} } as unknown as Exchange;
  await serveHotRead({ admission, batched, send } as unknown as Parameters<typeof serveHotRead>[0], exchange, ID);

  const perform = HOT_READ["GET /products/:id"]!.read({
    method: "GET",
    path: { id: ID },
    query: {},
    body: {},
    headers,
    requester: exchange,
  });
  const reply = await perform({} as unknown as Parameters<Perform>[0], batched as unknown as Parameters<Perform>[1]);
  expect(reply.status).toBe(status);
  expect(send).toHaveBeenCalledWith(exchange.req, exchange.res, reply);
  expect(exchange.routePath).toBe("/products/:id");
});
