import { randomBytes } from "node:crypto";
import { Client as Postgres } from "pg";
import type { ApiResponse, Client } from "../../testkit/client";
import { testId } from "../../testkit/ids";
import { ADMIN } from "../../testkit/admin";
import { startShop, type Shop } from "../../testkit/shop";

let shop: Shop;
let nobody: Client;
let user: Client;
let admin: Client;

/** Everything that the shop has logged at its most verbose level. */
const logged: string[] = [];
const METHODS = ["log", "info", "warn", "error", "debug", "trace"] as const;

beforeAll(async () => {
  for (const method of METHODS)
    jest.spyOn(console, method).mockImplementation((...args: unknown[]) => void logged.push(args.map(String).join(" ")));
  const env = { LOG_LEVEL: "trace", LOG_FORMAT: "json", CORS_ORIGINS: "https://shop.example.com", REFRESH_GRACE: "0" };
  shop = await startShop({ env });
  [nobody, user, admin] = [shop.client(), shop.client(), shop.client()];
  await Promise.all([user.signUp(), admin.login(ADMIN.email, ADMIN.password)]);
});
afterAll(async () => {
  await shop.stop();
  jest.restoreAllMocks();
});

/** Written out, so that a route does not become public by a change of the route table alone. */
const PUBLIC = [
  "GET /.well-known/jwks.json",
  "GET /.well-known/oauth-authorization-server",
  "GET /docs",
  "GET /docs/{file}",
  "GET /health",
  "GET /health/live",
  "GET /health/ready",
  "GET /openapi.json",
  "GET /problems/{code}",
  "GET /products",
  "GET /products/{id}",
  "POST /logout",
  "POST /register",
  "POST /token",
  "POST /token/refresh",
];
const ADMINS_ONLY = [
  "GET /admin/audit-log",
  "GET /admin/consistency",
  "GET /admin/events",
  "GET /admin/nodes",
  "GET /admin/outbox",
  "GET /admin/users",
  "PATCH /admin/users/{id}",
  "POST /admin/outbox/{id}/replay",
  "POST /admin/repair",
];

describe("a route", () => {
  let lines: string[];

  beforeAll(async () => {
    const { body } = await nobody.get("/openapi.json");
    lines = Object.entries(body["paths"] as Record<string, object>)
      .flatMap(([path, operations]) => Object.keys(operations).map((method) => `${method.toUpperCase()} ${path}`))
      .sort();
  });

  /** Of a request without content to each route. */
  const linesAnswered = async (status: number, token?: string): Promise<string[]> => {
    const found: string[] = [];
    for (const line of lines) {
      const [method = "", path = ""] = line.split(" ");
      const id = path.startsWith("/admin/outbox") ? "1" : testId(1);
      const response = await fetch(shop.url + path.replace("{id}", id).replace("{file}", "start.js").replace("{code}", "NOT_FOUND"), {
        method,
        headers: { "Content-Type": "application/json", ...(token !== undefined && { Authorization: `Bearer ${token}` }) },
        ...(/POST|PUT|PATCH/.test(method) && { body: "{}" }),
        signal: AbortSignal.timeout(10_000),
      });
      await response.body?.cancel();
      if (response.status === status) found.push(line);
    }
    return found;
  };

  it.each([
    ["without a token", undefined],
    ["with an invalid token", "bad"],
  ])("%s → 401, on every route but those listed as public", async (_how, token) => {
    const refused = await linesAnswered(401, token);
    expect(lines.filter((line) => !refused.includes(line))).toEqual(PUBLIC);
  });

  it("of a user who is no admin → 403, on the routes listed as for admins only", async () => {
    expect(await linesAnswered(403, user.token)).toEqual(ADMINS_ONLY);
  });

  it("is the only way in: no action can be called by its name", async () => {
    const names = shop.nodes[0]!.registry.actions.list({}).map(({ name }) => name);
    expect(names).toEqual(
      expect.arrayContaining(["$node.health", "orders.audit", "users.rotateKeys", "users.revocations", "products.reservations"]),
    );
    for (const name of names) {
      const [service = "", action = ""] = name.split(".");
      for (const path of [`/${name}`, `/${service}/${action}`, `/~${service.slice(1)}/${action}`, `/api/${name}`])
        for (const method of ["GET", "POST"]) {
          const { status } = await admin.request(method, path, undefined, method === "POST" ? { raw: "{}" } : {});
          expect([path, method, status === 404 || status === 405]).toEqual([path, method, true]);
        }
    }
  }, 60_000);
});

it("every kind of response is guarded against sniffing, doesn't reveal the server software, and isn't cached if it is private", async () => {
  const id = await user.createProduct();
  const order = String((await user.order(id, 1)).body["id"]);
  const PUBLIC = [`/products/${id}`, "/products", "/nowhere", "/products/abc", "/.well-known/jwks.json"];
  const PRIVATE = ["/me", "/orders", `/orders/${order}`, "/admin/outbox"];
  for (const path of [...PUBLIC, ...PRIVATE]) {
    const { headers } = await user.get(path);
    expect(headers.get("x-content-type-options")).toBe("nosniff");
    expect(headers.get("x-request-id")).toMatch(/^[0-9a-f-]{36}$/);
    for (const name of ["x-powered-by", "server", "set-cookie"]) expect(headers.has(name)).toBe(false);
    if (PRIVATE.includes(path)) expect(headers.get("cache-control")).toBe("no-store");
  }
});

it("passwords, tokens and keys are never logged, and never in an audit or an error", async () => {
  const secret = () => `canary-${randomBytes(12).toString("hex")}`;
  const [password, wrong, next, key] = [secret(), secret(), secret(), secret()];
  const email = `${randomBytes(8).toString("hex")}@shop.test`;
  const client = shop.client();
  const responses: ApiResponse[] = [];
  const keep = async (response: Promise<ApiResponse>): Promise<ApiResponse> => {
    responses.push(await response);
    return response;
  };

  await client.post("/register", { email, password });
  await keep(client.post("/register", { email, password: wrong }));
  await keep(client.post("/register", { email, password: `${wrong}\0` }));
  await keep(client.post("/token", { email, password: wrong }));
  const { body: first } = await client.post("/token", { email, password });
  const { body: second } = await client.post("/token/refresh", { refresh_token: first["refresh_token"] });
  await keep(client.post("/token/refresh", { refresh_token: first["refresh_token"] }));
  const { body: third } = await client.post("/token", { email, password });
  client.token = String(third["access_token"]);
  await client.request("PUT", "/me/password", { current_password: password, new_password: next });
  await keep(client.request("PUT", "/me/password", { current_password: wrong, new_password: next }));
  await keep(client.get("/me", { token: `${client.token}x` }));
  await keep(client.order(testId(99_999), 1, { headers: { "Idempotency-Key": key } }));
  await client.post("/logout", { refresh_token: third["refresh_token"] });

  const database = new Postgres(shop.databases.users.url);
  await database.connect();
  const { rows } = await database.query<{ private_key: string }>("select private_key from signing_keys");
  // an unexpected failure, whose error contains the statement and its values
  await database.query("alter table sessions add constraint broken check (false) not valid");
  const broken = await keep(client.post("/token", { email, password: next }));
  await database.query("alter table sessions drop constraint broken").finally(() => database.end());
  expect(broken.status).toBe(500);

  const logText = [
    ...logged,
    ...responses.map(({ body }) => JSON.stringify(body)),
    JSON.stringify((await admin.get("/admin/consistency")).body),
  ].join("\n");
  expect(logText).toContain("users.token failed"); // the log isn't empty
  const tokens = [first, second, third].flatMap((body) => [body["access_token"], body["refresh_token"]] as string[]);
  const secrets = [password, wrong, next, key, ...tokens, rows[0]!.private_key.slice(60, 120), "$2a$", "$2b$", "Bearer "];
  for (const one of secrets) expect(logText.includes(one) ? one : "").toBe("");
});
