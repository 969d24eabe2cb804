import { ADMIN } from "../../testkit/admin";
import { EXAMPLE_ID } from "../../services/api/openapi/schemas";
import { eventually } from "../../testkit/until";
import { Walk } from "./walk";

const ADA = { email: "ada@example.com", password: "correct horse" };
const PAGES = [
  ...["/health/live", "/health/ready", "/health", "/.well-known/jwks.json", "/.well-known/oauth-authorization-server"],
  ...["/openapi.json", "/docs", "/problems/NOT_FOUND"],
];

/** Uses nearly every operation of the shop, through Prism. Every request is one that the document allows, also those that get a problem. */
export async function journey(url: string): Promise<Walk> {
  const walk = new Walk(url);
  const token = await register(walk);
  const product = await sell(walk, token);
  await order(walk, token, product);
  await administer(walk, token);
  for (const page of PAGES) await walk.ask(200, `GET ${page}`);
  await withdraw(walk, token, product);
  await leave(walk, token);
  return walk;
}

/** @returns an access token */
async function register(walk: Walk): Promise<string> {
  await walk.ask(201, "POST /register", { body: ADA });
  await walk.ask("EMAIL_TAKEN", "POST /register", { body: { ...ADA, password: "another password" } });
  await walk.ask("INVALID_CREDENTIALS", "POST /token", { body: { ...ADA, password: "wrong" } });
  const { body } = await walk.ask(200, "POST /token", { body: ADA });
  const renewed = await walk.ask(200, "POST /token/refresh", { body: { refresh_token: body["refresh_token"] } });
  await walk.ask("INVALID_REFRESH_TOKEN", "POST /token/refresh", { body: { refresh_token: "unknown" } });
  const token = String(renewed.body["access_token"]);
  await walk.ask(200, "GET /me", { token });
  await walk.ask("UNAUTHENTICATED", "GET /me", { token: "unknown" });
  return token;
}

/** @returns the id of a product of which 60 units are in stock */
async function sell(walk: Walk, token: string): Promise<string> {
  const lamp = { name: "Desk lamp", price: 49.9, quantity: 50, category: "lamps" };
  const { body, headers } = await walk.ask(201, "POST /products", { token, body: lamp });
  const path = `/products/${String(body["id"])}`;
  await walk.ask(201, "POST /products", { token, body: { ...lamp, name: "Floor lamp" } });
  await walk.ask("VALIDATION_ERROR", "POST /products", { token, body: { ...lamp, price: 49.999 } });
  await walk.ask(200, "GET /products?category=lamps&in_stock=true&min_price=1&sort=-price&limit=1");
  await walk.ask("BAD_REQUEST", "GET /products?cursor=x");

  const etag = headers.get("etag") ?? "";
  await walk.ask(200, `GET ${path}`);
  await walk.ask(304, `GET ${path}`, { headers: { "If-None-Match": etag } });
  await walk.ask("PRODUCT_NOT_FOUND", `GET /products/${EXAMPLE_ID}`);
  await walk.ask(200, `PATCH ${path}`, { token, body: { price: 44.9, description: "With a dimmer" } });
  await walk.ask("PRECONDITION_FAILED", `PATCH ${path}`, { token, body: { price: 39.9 }, headers: { "If-Match": etag } });
  await walk.ask(200, `POST ${path}/stock`, { token, body: { delta: 10, reason: "delivery" } });
  await walk.ask("INSUFFICIENT_STOCK", `POST ${path}/stock`, { token, body: { delta: -1_000 } });
  await walk.ask(200, `GET ${path}/stock?limit=1`, { token });
  return String(body["id"]);
}

async function order(walk: Walk, token: string, product: string): Promise<void> {
  const request = (quantity: number, product_id = product) => ({ token, body: { items: [{ product_id, quantity }] } });
  const headers = { "Idempotency-Key": "my-first-order" };
  const { body } = await walk.ask(201, "POST /orders", { ...request(3), headers });
  await walk.ask(201, "POST /orders", { ...request(3), headers });
  await walk.ask("IDEMPOTENCY_KEY_REUSED", "POST /orders", { ...request(4), headers });
  await walk.ask("INSUFFICIENT_STOCK", "POST /orders", request(9_999));
  await walk.ask("PRODUCT_NOT_FOUND", "POST /orders", request(1, EXAMPLE_ID));

  const path = `/orders/${String(body["id"])}`;
  await eventually("the order is confirmed", async () => (await walk.ask(200, `GET ${path}`, { token })).body["status"] === "CONFIRMED");
  await walk.ask(200, "GET /orders?status=CONFIRMED&limit=1", { token });
  await walk.ask("FORBIDDEN", "GET /orders?all=true", { token });
  await walk.ask("ORDER_NOT_FOUND", `GET /orders/${EXAMPLE_ID}`, { token });

  const followed = walk.ask(200, `GET ${path}/events`, { token }); // Prism sends it once it is complete, so after the cancel
  followed.catch(() => undefined); // awaited below
  await walk.ask(200, `POST ${path}/cancel`, { token, body: {} });
  await walk.ask(200, `POST ${path}/cancel`, { token, body: {} });
  await followed;
  await walk.ask(204, `GET ${path}/events`, { token, headers: { "Last-Event-ID": "3" } });
}

async function administer(walk: Walk, user: string): Promise<void> {
  const { body } = await walk.ask(200, "POST /token", { body: ADMIN });
  const token = String(body["access_token"]);
  const me = await walk.ask(200, "GET /me", { token });
  const ada = await walk.ask(200, `GET /admin/users?email=${encodeURIComponent(ADA.email)}`, { token });
  await walk.ask("USER_NOT_FOUND", "GET /admin/users?email=nobody%40example.com", { token });
  await walk.ask(200, `PATCH /admin/users/${String(ada.body["id"])}`, { token, body: { role: "user" } });
  await walk.ask("LAST_ADMIN", `PATCH /admin/users/${String(me.body["id"])}`, { token, body: { disabled: true } });
  await walk.ask(200, "GET /admin/audit-log?action=login.failed&limit=1", { token });

  const settled = await walk.ask(200, "GET /admin/outbox?state=settled&limit=1", { token });
  await walk.ask("NOT_PARKED", `POST /admin/outbox/${String(settled.body["items"]?.[0]?.id)}/replay`, { token, body: {} });
  await walk.ask("NOT_FOUND", "POST /admin/outbox/999999/replay", { token, body: {} });
  await walk.ask(200, "GET /admin/consistency", { token });
  await walk.ask(200, "POST /admin/repair", { token, body: { apply: false } });
  await walk.ask(200, "GET /admin/nodes", { token });
  await walk.ask("FORBIDDEN", "GET /admin/nodes", { token: user });
}

async function withdraw(walk: Walk, token: string, product: string): Promise<void> {
  await walk.ask(204, `DELETE /products/${product}`, { token });
  await walk.ask("PRODUCT_NOT_FOUND", `GET /products/${product}`);
}

async function leave(walk: Walk, token: string): Promise<void> {
  const password = "battery staple";
  await walk.ask("INVALID_CREDENTIALS", "PUT /me/password", { token, body: { current_password: "wrong", new_password: password } });
  await walk.ask(204, "PUT /me/password", { token, body: { current_password: ADA.password, new_password: password } });
  const { body } = await walk.ask(200, "POST /token", { body: { ...ADA, password } });
  await walk.ask(204, "POST /logout", { body: { refresh_token: body["refresh_token"] } });
}
