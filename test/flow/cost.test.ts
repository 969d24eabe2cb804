import { fieldsOf } from "../../contracts/contract";
import type { Route } from "../../services/api/routing/route";
import { bodies, BODY_LIMIT, BOMBS, EMPTY_MEMBERS, ENCODE, exchange, HEADERS, oneByOne, queriesFor, SEGMENTS } from "./expensive-requests";
import type { Client } from "../../testkit/client";
import { ADMIN } from "../../testkit/admin";
import { startShop, type Shop } from "../../testkit/shop";

/** Maximum CPU time of the gateway's thread per request, in ms. */
const LIMIT_MS = 50;
/** A slower request is repeated, since garbage collection or a first compilation isn't caused by the request. */
const TRIES = 5;

let shop: Shop;
let admin: Client;
let productId: string;
let orderId: string;

beforeAll(async () => {
  shop = await startShop({ env: { TRUST_PROXY: "loopback, 10.0.0.0/8", CORS_ORIGINS: "https://shop.example.com", RATE_LIMIT: "1000000" } });
  admin = await shop.client().login(ADMIN.email, ADMIN.password);
  productId = await admin.createProduct();
  orderId = String((await admin.order(productId, 1)).body["id"]);
});
afterAll(() => shop.stop());

const JSON_TYPE = ["Content-Type", "application/json"] as const;
const CHUNKED = ["Transfer-Encoding", "chunked"] as const;
const LAST_CHUNK = Buffer.from("0\r\n\r\n");

interface Sent {
  what: string;
  query?: string;
  segment?: string;
  headers?: readonly (readonly [string, string])[];
  body?: Buffer;
}

function routes(): [string, string, Route][] {
  const { aliases } = shop.node("api").getLocalService("api") as unknown as {
    aliases: { method: string; fullPath: string; spec: Route }[];
  };
  return aliases.map(({ method, fullPath, spec }) => [method, fullPath, spec]);
}

function* requests(spec: Route, hasId: boolean): Generator<Sent> {
  const names = Object.keys(fieldsOf(spec.contract.params));
  for (const [name, value] of HEADERS) yield { what: `${name}: ${value.slice(0, 20)}`, headers: [[name, value]] };
  for (const query of queriesFor(spec.body === "none" ? names : [])) yield { what: `?${query.slice(0, 20)}`, query };
  if (hasId) for (const segment of SEGMENTS) yield { what: segment.slice(0, 20), segment };
  if (spec.body === "none") return;
  let n = 0;
  for (const { name, type, body, isWhole } of bodies(names)) {
    const headers = [["Content-Type", type]] as const;
    yield { what: name, headers, body };
    // Each shape in one coding; whole bodies, which cost most, in all of them.
    const codings = Object.entries(ENCODE);
    for (const [coding, encode] of isWhole ? codings : [codings[n++ % codings.length]!])
      yield { what: `${name}, ${coding}`, headers: [...headers, ["Content-Encoding", coding]], body: encode(body) };
  }
  for (const [coding, bomb] of Object.entries(BOMBS))
    yield { what: `a bomb, ${coding}`, headers: [JSON_TYPE, ["Content-Encoding", coding]], body: bomb() };
  yield { what: "5,000 empty gzip members", headers: [JSON_TYPE, ["Content-Encoding", "gzip"]], body: EMPTY_MEMBERS };
  yield {
    what: "chunks of one byte",
    headers: [JSON_TYPE, CHUNKED],
    body: Buffer.concat([oneByOne(Buffer.from(" ".repeat(BODY_LIMIT - 2) + "{}")), LAST_CHUNK]),
  };
}

function bytesOf(method: string, path: string, { query, segment, headers = [], body }: Sent): Buffer[] {
  const id = segment ?? (path.startsWith("/orders") ? orderId : path.startsWith("/admin/outbox") ? "1" : productId);
  const target =
    path.replace(/:\w+/, () => (path.startsWith("/docs") && segment === undefined ? "start.js" : id)) +
    (query === undefined ? "" : `?${query}`);
  const has = (name: string): boolean => headers.some(([given]) => given.toLowerCase() === name);
  const head = [
    `${method} ${target} HTTP/1.1`,
    "Host: shop.test",
    "Connection: close",
    ...(has("authorization") ? [] : [`Authorization: Bearer ${admin.token!}`]),
    ...headers.map(([name, value]) => `${name}: ${value}`),
    ...(body === undefined || has("transfer-encoding") ? [] : [`Content-Length: ${body.length}`]),
  ];
  return [Buffer.from(`${head.join("\r\n")}\r\n\r\n`, "latin1"), ...(body === undefined ? [] : [body])];
}

it("no request costs the gateway's thread more than 50 ms of CPU, and each gets a response other than 500", async () => {
  const costs: { what: string; status: number; cpuMs: number }[] = [];
  for (const [method, path, spec] of routes())
    for (const request of requests(spec, path.includes(":"))) {
      const bytes = bytesOf(method, path, request);
      const what = `${method} ${path} ${request.what}`;
      const { status, cpuMs: first } = await exchange(shop.url, bytes);
      let cpuMs = first;
      for (let tries = 1; tries < TRIES && cpuMs > LIMIT_MS; tries++) cpuMs = Math.min(cpuMs, (await exchange(shop.url, bytes)).cpuMs);
      costs.push({ what, status, cpuMs });
    }
  expect(costs.filter(({ status, cpuMs }) => cpuMs > LIMIT_MS || !(status >= 200 && status < 500))).toEqual([]);
  expect(costs.length).toBeGreaterThan(2_000);
}, 300_000);

it("a body in more than 4,096 chunks is refused even if it is valid so far, and ends its connection", async () => {
  const names = async () =>
    ((await admin.get("/products?limit=100&category=chunks")).body["items"] as { name: string }[]).map(({ name }) => name);
  const product = (name: string): Buffer => Buffer.from(JSON.stringify({ name, price: 1, quantity: 1, category: "chunks" }));
  const create = (body: Buffer): Buffer[] => bytesOf("POST", "/products", { what: "", headers: [JSON_TYPE, CHUNKED], body });
  const few = create(Buffer.concat([oneByOne(Buffer.concat([product("few"), Buffer.from(" ".repeat(4_000))])), LAST_CHUNK]));
  expect((await exchange(shop.url, few)).status).toBe(201);
  const many = create(Buffer.concat([oneByOne(Buffer.concat([product("many"), Buffer.from(" ".repeat(5_000))])), LAST_CHUNK]));
  const [head = Buffer.alloc(0), body = Buffer.alloc(0)] = many;
  const keptAlive = Buffer.from(head.toString("latin1").replace("Connection: close", "Connection: keep-alive"), "latin1");
  const { status, text } = await exchange(shop.url, [keptAlive, body, ...bytesOf("GET", "/health/live", { what: "" })]);
  expect(status).toBe(400);
  expect(text).toMatch(/Connection: close.*too many parts/s);
  expect(text).not.toContain("HTTP/1.1 200");
  expect(await names()).toEqual(["few"]);
});

it("a parameter that is unknown to a list is refused, even if it occurs 3,700 times", async () => {
  const { status, body } = await admin.get(`/orders?limit=1&${"a=1&".repeat(3_700)}`);
  expect([status, body["code"]]).toEqual([400, "BAD_REQUEST"]);
});
