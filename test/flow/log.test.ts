import { connect } from "node:net";
import { Client as Postgres } from "pg";
import type { Client } from "../../testkit/client";
import { testId } from "../../testkit/ids";
import { Documentation } from "../../testkit/openapi";
import { refusals, type Fixture, type Refusal } from "./refusals";
import { ADMIN } from "../../testkit/admin";
import { startShop, type Shop } from "../../testkit/shop";
import { SERVICES } from "../../config";

/** Rate limit per address and second; the test sends each request from another address. */
const RATE_LIMIT = 20;

let shop: Shop;
let people: Record<"seller" | "buyer" | "admin", Client>;
let documentation: Documentation;
let fixture: Fixture;
let userIds: string[];
/** The lines logged at the levels error and fatal. */
const logged: string[] = [];

beforeAll(() => {
  for (const method of ["log", "info", "warn", "error", "debug"] as const)
    jest.spyOn(console, method).mockImplementation((...args: unknown[]) => void logged.push(args.map(String).join(" ")));
});
afterAll(() => {
  jest.restoreAllMocks();
});

let addresses = 0;
const anotherAddress = (): string => `203.0.${++addresses >> 8}.${addresses & 255}`;

async function inDatabase<T>(name: "products" | "orders", work: (database: Postgres) => Promise<T>): Promise<T> {
  const database = new Postgres(shop.databases[name].url);
  await database.connect();
  return work(database).finally(() => database.end());
}

const inOrders = <T>(work: (database: Postgres) => Promise<T>): Promise<T> => inDatabase("orders", work);

/** Writes a key of these users, as a request that no route has would do. */
const writeKey = (database: Postgres, key: string, userIds: readonly string[]) =>
  database.query(
    "insert into idempotent_requests (user_id, key, request_hash, response) select user_id, $1, 'another', '{}' from unnest($2::uuid[]) as u (user_id)",
    [key, userIds],
  );

async function open(nodes: readonly (readonly (typeof SERVICES)[number][])[]): Promise<void> {
  shop = await startShop({
    nodes,
    env: { LOG_LEVEL: "error", LOG_FORMAT: "json", TRUST_PROXY: "loopback", RATE_LIMIT: String(RATE_LIMIT), RATE_LIMIT_AUTH: "5" },
  });
  people = { seller: shop.client(), buyer: shop.client(), admin: shop.client() };
  const [seller, buyer] = [await people.seller.signUp(), await people.buyer.signUp()];
  await people.admin.login(ADMIN.email, ADMIN.password);
  documentation = await Documentation.of(shop.url);
  const productId = await people.seller.createProduct();
  const order = async (key: string): Promise<string> =>
    String((await people.buyer.order(productId, 1, { headers: { "Idempotency-Key": key } })).body["id"]);
  const [orderId, rejectedId] = [await order("used"), await order("rejected")];
  await Promise.all([people.buyer.decided(orderId), people.buyer.decided(rejectedId)]);
  const outboxId = await inOrders(async (database) => {
    await database.query("update orders set status = 'REJECTED' where id = $1", [rejectedId]);
    return Number((await database.query<{ id: string }>("select id from outbox order by id limit 1")).rows[0]!.id);
  });
  const adminId = String((await people.admin.get("/me")).body["id"]);
  userIds = [seller, buyer, adminId];
  for (const name of ["products", "orders"] as const) await inDatabase(name, (database) => writeKey(database, "used", userIds));
  fixture = { productId, orderId, rejectedId, outboxId, usedKey: "used", heldKey: "held", email: ADMIN.email, adminId };
}

/** @returns the code with which the request is refused; "" if it isn't */
async function send({ method, target, as, token, headers, body, withoutHost = false }: Refusal, from = anotherAddress()): Promise<string> {
  if (withoutHost) return overSocket(`${method} ${target} HTTP/1.1\r\nConnection: close\r\nX-Forwarded-For: ${from}\r\n\r\n`);
  const bearer = token ?? (as && people[as].token) ?? "";
  const response = await fetch(shop.url + target, {
    method,
    headers: { "X-Forwarded-For": from, ...(bearer !== "" && { Authorization: `Bearer ${bearer}` }), ...headers },
    ...(body !== undefined && { body: typeof body === "string" ? body : new Uint8Array(body) }),
  });
  if (response.status < 400) {
    await response.body?.cancel();
    return "";
  }
  return ((await response.json()) as { code: string }).code;
}

function overSocket(text: string): Promise<string> {
  const { hostname, port } = new URL(shop.url);
  return new Promise((resolve, reject) => {
    let received = "";
    const socket = connect(Number(port), hostname, () => socket.write(text));
    socket.on("data", (chunk) => (received += chunk.toString()));
    socket.on("error", reject);
    socket.on("close", () => {
      resolve(/"code":"(\w+)"/.exec(received)?.[1] ?? "");
    });
  });
}

/** Sends the requests one after the other. @returns those that are not refused with their code */
async function sendAll(list: readonly Refusal[]): Promise<object[]> {
  const wrong: object[] = [];
  for (const refusal of list) {
    const code = await send(refusal);
    if (code !== refusal.code) wrong.push({ ...refusal, body: String(refusal.body ?? "").slice(0, 100), code, expected: refusal.code });
  }
  return wrong;
}

describe.each([
  ["in one process", [SERVICES]],
  ["over nodes", [["api"], ["users"], ["products"], ["orders"]]],
] as const)("%s, no ERROR is logged", (_where, nodes) => {
  beforeAll(() => open(nodes));
  afterAll(() => shop.stop());
  beforeEach(() => logged.splice(0));

  it("for any refusal that a route documents", async () => {
    const holdingKeys = (name: "products" | "orders", work: (other: Postgres) => Promise<void>): Promise<void> =>
      inDatabase(name, async (other) => {
        await other.query("begin");
        await writeKey(other, "held", userIds);
        await work(other);
      });
    await holdingKeys("products", () =>
      holdingKeys("orders", async (other) => {
        await other.query(
          "insert into orders (user_id, idempotency_key, request_hash, lines_digest, total_cents) select user_id, 'held', '', '', 0 from orders limit 1",
        );
        const { known, unknown } = refusals(documentation, fixture);
        // These codes don't belong to single routes, and have their own tests below.
        expect(unknown.filter((one) => !/: (TOO_MANY_REQUESTS|SERVICE_UNAVAILABLE|INTERNAL_ERROR)$/.test(one))).toEqual([]);
        expect(known.length).toBeGreaterThan(150);
        expect(await sendAll(known)).toEqual([]);
      }),
    );
    expect(logged).toEqual([]);
  });

  it("for too many requests, at any route, and for too many wrong passwords", async () => {
    for (const line of documentation.lines.filter((one) => !/health\/(live|ready)/.test(one))) {
      const [method = "", template = ""] = line.split(" ");
      const from = anotherAddress();
      const codes = await Promise.all(
        Array.from({ length: 3 * RATE_LIMIT }, () =>
          send({ code: "", method, target: template.replace(/\{\w+\}/, "1"), withoutHost: true }, from),
        ),
      );
      expect([line, codes.filter((code) => code === "TOO_MANY_REQUESTS").length > 0]).toEqual([line, true]);
    }
    const wrong = {
      code: "",
      method: "POST",
      target: "/token",
      headers: { "Content-Type": "application/json" },
      body: '{"email":"a@b.co","password":"x"}',
    };
    const codes: string[] = [];
    const from = anotherAddress();
    for (let i = 0; i < 8; i++) codes.push(await send(wrong, from));
    expect(codes.at(-1)).toBe("TOO_MANY_REQUESTS");
    expect(logged).toEqual([]);
  });

  it("for invalid HTTP, a client that disconnects, an unknown path or an unsupported method", async () => {
    expect(await overSocket("nonsense\r\n\r\n")).toBe("BAD_REQUEST");
    expect(await overSocket(`GET / HTTP/1.1\r\nHost: a\r\nX: ${"x".repeat(20_000)}\r\n\r\n`)).toBe("BAD_REQUEST");
    const { hostname, port } = new URL(shop.url);
    for (const text of [
      "POST /products HTTP/1.1\r\nHost: a\r\nContent-Length: 50\r\nContent-Type: application/json\r\n\r\n{",
      "GET /products?limit=100 HTTP/1.1\r\nHost: a\r\n\r\n",
    ])
      await new Promise<void>((resolve) => {
        const socket = connect(Number(port), hostname, () => socket.write(text, () => socket.destroy()));
        socket.on("close", () => {
          resolve();
        });
      });
    expect(await send({ code: "", method: "GET", target: "/nowhere" })).toBe("NOT_FOUND");
    expect(await send({ code: "", method: "DELETE", target: "/token" })).toBe("METHOD_NOT_ALLOWED");
    expect(await send({ code: "", method: "GET", target: "/products/%zz" })).toBe("BAD_REQUEST");
    expect(logged).toEqual([]);
  });

  it("but an internal error is logged, with the id of its request", async () => {
    await inOrders((database) =>
      database.query("alter table orders rename to elsewhere; create view orders as select * from elsewhere where 1/0 = 0"),
    );
    const headers = { "X-Request-Id": "it-was-this-one" };
    expect(await send({ code: "", method: "GET", target: "/orders", as: "buyer", headers })).toBe("INTERNAL_ERROR");
    await inOrders((database) => database.query("drop view orders; alter table elsewhere rename to orders"));
    expect(logged.length).toBeGreaterThan(0);
    for (const line of logged) expect(JSON.parse(line)).toMatchObject({ level: "error", request_id: "it-was-this-one" });
  });

  it("for an unavailable service", async () => {
    if (nodes.length === 1) return; // all services are in this process
    for (const name of ["products", "orders", "users"] as const) await shop.node(name).stop();
    const needsNone = /health|openapi|docs|problems|oauth|admin\/(nodes|events)/;
    for (const line of documentation.lines.filter((one) => !needsNone.test(one))) {
      const [method = "", template = ""] = line.split(" ");
      const { parameters = [], requestBody } = documentation.operation(line);
      const body = requestBody?.content["application/json"]?.example;
      const query = parameters.flatMap(({ name, in: place, required, schema }) =>
        place === "query" && required ? [`${name}=${String(schema.examples?.[0])}`] : [],
      );
      const code = await send({
        code: "",
        method,
        target: [template.replace("{id}", template.startsWith("/admin/outbox") ? "1" : testId(1)), ...query].join("?"),
        as: "admin",
        ...(body !== undefined && { body: JSON.stringify(body), headers: { "Content-Type": "application/json" } }),
      });
      expect([line, code]).toEqual([line, "SERVICE_UNAVAILABLE"]);
    }
    expect(logged).toEqual([]);
  });
});
