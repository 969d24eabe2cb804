import type { FastifyReply, FastifyRequest } from "fastify";
import { createPublicKey, randomUUID, type JsonWebKey } from "node:crypto";
import jwt from "jsonwebtoken";
import { LRUCache } from "lru-cache";
import { parseId } from "../../contracts/contract";
import { AUDIENCE, ISSUER } from "../../contracts/users";
import { NEW_ORDER, PAGE_QUERY } from "./schema";
import { env, Refusal, serve, server, Upstream, type UpstreamResponse } from "./shared";

const pem = env("PUBLIC_KEY");
const key = createPublicKey(pem.startsWith("{") ? { key: JSON.parse(pem) as JsonWebKey, format: "jwk" } : pem);
const passed = new LRUCache<string, { user: string; exp: number }>({ max: 10_000 });
const products = new Upstream(env("PRODUCTS_URL"), 8, 8);
const orders = new Upstream(env("ORDERS_URL"), 64);
const app = server();

/** Returns the user's id. Verified tokens are cached until they expire. */
function authenticate(request: FastifyRequest): string {
  const token = /^Bearer +(\S+)$/i.exec(request.headers.authorization ?? "")?.[1] ?? "";
  const known = passed.get(token);
  if (known !== undefined && known.exp * 1_000 > Date.now()) return known.user;
  try {
    const claims = jwt.verify(token, key, { algorithms: ["RS256"], issuer: ISSUER, audience: AUDIENCE });
    if (typeof claims === "string" || claims.exp === undefined || parseId(claims.sub ?? "") === undefined) throw new Error("no user");
    const user = String(claims.sub);
    passed.set(token, { user, exp: claims.exp });
    return user;
  } catch {
    throw new Refusal(401, "UNAUTHENTICATED", "a valid access token is needed");
  }
}

const PASSED_ON = ["etag", "location", "idempotent-replayed"] as const;

/** Passes a service's response on unchanged. */
function pass(request: FastifyRequest, reply: FastifyReply, response: UpstreamResponse): FastifyReply {
  for (const name of PASSED_ON) if (response.headers[name] !== undefined) reply.header(name, response.headers[name]);
  if (response.headers.etag !== undefined && response.headers.etag === request.headers["if-none-match"] && response.status === 200)
    return reply.code(304).send();
  return reply.code(response.status).header("content-type", "application/json; charset=utf-8").send(response.body);
}

app.get<{ Params: { id: string } }>("/products/:id", async (request, reply) => {
  const product = parseId(request.params.id);
  if (product === undefined) throw new Refusal(404, "PRODUCT_NOT_FOUND", "there is no such product");
  return pass(request, reply, await products.request("GET", `/products/${product}`));
});

app.get("/products", { schema: { querystring: PAGE_QUERY } }, async (request, reply) =>
  pass(request, reply, await products.request("GET", request.url)),
);

app.post(
  "/orders",
  {
    schema: { body: NEW_ORDER },
    onRequest: (request, _reply, done) => {
      authenticate(request);
      done();
    },
  },
  async (request, reply) => {
    const given = request.headers["idempotency-key"] ?? randomUUID();
    if (typeof given !== "string" || !/^[\x21-\x7e]{1,255}$/.test(given))
      throw new Refusal(422, "VALIDATION_ERROR", "Idempotency-Key must be 1 to 255 visible ASCII characters");
    const headers = { "content-type": "application/json", "x-user-id": authenticate(request), "idempotency-key": given };
    return pass(request, reply, await orders.request("POST", "/orders", headers, JSON.stringify(request.body)));
  },
);

app.get<{ Params: { id: string } }>("/orders/:id", async (request, reply) => {
  const user = authenticate(request);
  const order = parseId(request.params.id);
  if (order === undefined) throw new Refusal(404, "ORDER_NOT_FOUND", "there is no such order");
  return pass(request, reply, await orders.request("GET", `/orders/${order}`, { "x-user-id": user }));
});

app.get("/health", async (_request, reply) => {
  const responses = await Promise.allSettled([products.request("GET", "/health"), orders.request("GET", "/health")]);
  const ok = responses.every((response) => response.status === "fulfilled" && response.value.status === 200);
  return reply.code(ok ? 200 : 503).send({ status: ok ? "ok" : "unavailable" });
});

void serve(app, () => Promise.all([products.pool.close(), orders.pool.close()]));
