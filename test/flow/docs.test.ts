import { execFileSync } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { get } from "node:http";
import { tmpdir } from "node:os";
import path from "node:path";
import { Client as Postgres } from "pg";
import type { Tokens } from "../../contracts/users";
import { EXAMPLE_ID } from "../../services/api/openapi/schemas";
import { Documentation, type Served } from "../../testkit/openapi";
import { ROOT } from "../../testkit/repository";
import { ADMIN } from "../../testkit/admin";
import { startShop, type Shop } from "../../testkit/shop";
import { codesOf } from "./refusals";

const ORIGIN = "https://shop.example.com";
let shop: Shop;
let documentation: Documentation;
let admin: string;
let user: string;
let refresh: string;

beforeAll(async () => {
  shop = await startShop({ env: { CORS_ORIGINS: ORIGIN } });
  documentation = await Documentation.of(shop.url);
  admin = (await shop.client().login(ADMIN.email, ADMIN.password)).token!;
});
afterAll(() => shop.stop());

/** The first part of a stream that does not end. */
async function firstOf(response: Response): Promise<string> {
  if (response.status !== 200) return response.text();
  const reader = response.body!.getReader();
  const { value } = (await reader.read()) as { value: Uint8Array };
  await reader.cancel();
  return new TextDecoder().decode(value);
}

async function ask(method: string, target: string, options: { token?: string; headers?: Record<string, string>; body?: string } = {}) {
  const { token, headers, body } = options;
  const response = await fetch(shop.url + target, {
    method,
    headers: { ...(token !== undefined && { Authorization: `Bearer ${token}` }), ...headers },
    ...(body !== undefined && { body }),
  });
  const text = target === "/admin/events" ? await firstOf(response) : await response.text();
  const isJson = /json/.test(response.headers.get("content-type") ?? "");
  return { status: response.status, headers: response.headers, body: isJson && text !== "" ? (JSON.parse(text) as unknown) : text };
}

describe("the document", () => {
  it("is OpenAPI 3.1", async () => {
    const folder = await mkdtemp(path.join(tmpdir(), "openapi-"));
    const file = path.join(folder, "openapi.json");
    await writeFile(file, JSON.stringify(documentation.document));
    // In a separate process, since Jest can't load ES modules.
    const validator = path.join(ROOT, "node_modules/@seriousme/openapi-schema-validator/bin/validate-api-cli.js");
    expect(JSON.parse(execFileSync(process.execPath, [validator, file], { encoding: "utf8" }))).toEqual({ valid: true });
    await rm(folder, { recursive: true });
  });

  it("contains every route of the gateway, and no other", () => {
    const { aliases } = shop.node("api").getLocalService("api") as unknown as { aliases: { method: string; path: string }[] };
    const routes = aliases.map((alias) => `${alias.method} /${alias.path.replace(/^\//, "").replace(/:(\w+)/g, "{$1}")}`);
    expect(routes.length).toBeGreaterThan(20);
    expect(documentation.lines.toSorted()).toEqual(routes.toSorted());
  });

  it("names each operation once", () => {
    const ids = documentation.lines.map((line) => documentation.operation(line).operationId);
    expect(ids).toHaveLength(new Set(ids).size);
  });

  it("has no fields for values from the path and headers, such as keys and versions", () => {
    const fields = (line: string) => {
      const { schema } = documentation.operation(line).requestBody!.content["application/json"]!;
      return Object.keys(documentation.resolve(schema)["properties"] as object);
    };
    const headers = (line: string) =>
      documentation.operation(line).parameters!.flatMap(({ name, in: place }) => (place === "header" ? name : []));
    expect(fields("PATCH /products/{id}")).toEqual(["name", "price", "description", "category", "sku"]);
    expect(headers("PATCH /products/{id}")).toEqual(["If-Match"]);
    expect(fields("POST /orders")).toEqual(["items"]);
    expect(headers("POST /orders")).toEqual(["Idempotency-Key"]);
    expect(headers("POST /orders/{id}/cancel")).toEqual(["If-Match", "Idempotency-Key"]);
    expect(JSON.stringify(documentation.document)).not.toMatch(/"(versions|tags|edits|idempotency_key)":\{|"version":\{[^}]*integer/);
  });

  it("has an Idempotency-Key, its errors and the header of a replay on each route that honours it, and on no other", () => {
    const keyed = documentation.lines.filter((line) =>
      documentation.operation(line).parameters?.some(({ name }) => name === "Idempotency-Key"),
    );
    expect(keyed.toSorted()).toEqual([
      "POST /admin/outbox/{id}/replay",
      "POST /orders",
      "POST /orders/{id}/cancel",
      "POST /products",
      "POST /products/{id}/stock",
    ]);
    for (const line of documentation.lines) {
      const isKeyed = keyed.includes(line);
      const codes = codesOf(documentation, line).filter((code) => code.startsWith("IDEMPOTENCY_"));
      expect([line, codes.sort()]).toEqual([line, isKeyed ? ["IDEMPOTENCY_IN_FLIGHT", "IDEMPOTENCY_KEY_REUSED"] : []]);
      for (const [status, { headers = {} }] of Object.entries(documentation.operation(line).responses))
        expect([line, status, "Idempotent-Replayed" in headers]).toEqual([line, status, isKeyed && Number(status) < 300]);
    }
  });

  it("shows how to read each event stream in a terminal", () => {
    const isStream = (line: string) => "text/event-stream" in (documentation.operation(line).responses["200"]?.content ?? {});
    const streams = documentation.lines.filter(isStream);
    const urls = { "GET /orders/{id}/events": "$SHOP/orders/$ORDER/events", "GET /admin/events": "$SHOP/admin/events" };
    expect(streams.toSorted()).toEqual(Object.keys(urls).toSorted());
    for (const [line, url] of Object.entries(urls))
      expect(documentation.operation(line)).toMatchObject({ description: expect.stringContaining(`curl -N "${url}"`) });
  });

  it("has ids as UUIDs, with an example, and those of outbox rows as numbers", () => {
    const id = (line: string) => documentation.operation(line).parameters!.find(({ name }) => name === "id");
    const uuid = { schema: { type: "string", format: "uuid", examples: [EXAMPLE_ID] }, example: EXAMPLE_ID };
    for (const line of ["GET /products/{id}", "POST /orders/{id}/cancel", "PATCH /admin/users/{id}"]) expect(id(line)).toMatchObject(uuid);
    expect(id("POST /admin/outbox/{id}/replay")).toMatchObject({ schema: { type: "integer", minimum: 1 }, example: 1 });
    expect(JSON.stringify(documentation.document)).not.toContain("lowercase");
  });

  it("is cached by clients until it changes, and other origins may read it", async () => {
    const { status, headers } = await ask("GET", "/openapi.json", { headers: { Origin: ORIGIN } });
    expect([status, headers.get("content-type")]).toEqual([200, "application/json; charset=utf-8"]);
    expect(headers.get("cache-control")).toBe("public, no-cache");
    expect(headers.get("access-control-allow-origin")).toBe(ORIGIN);
    const again = await ask("GET", "/openapi.json", { headers: { "If-None-Match": headers.get("etag")! } });
    expect([again.status, again.body]).toEqual([304, ""]);
    const head = await ask("HEAD", "/openapi.json");
    expect([head.status, head.body, head.headers.get("content-length")]).toEqual([200, "", headers.get("content-length")]);
  });
});

/** All operations, in an order in which the examples work in a new shop. */
const WALK = [
  ...["POST /register", "POST /token", "POST /token/refresh", "POST /logout", "GET /me", "PUT /me/password"],
  ...["GET /.well-known/jwks.json", "GET /.well-known/oauth-authorization-server"],
  ...["POST /products", "GET /products", "GET /products/{id}", "PATCH /products/{id}"],
  ...["POST /products/{id}/stock", "GET /products/{id}/stock"],
  ...["POST /orders", "GET /orders", "GET /orders/{id}", "POST /orders/{id}/cancel", "GET /orders/{id}/events"],
  ...["GET /admin/users", "PATCH /admin/users/{id}", "GET /admin/audit-log"],
  ...[
    "GET /admin/outbox",
    "POST /admin/outbox/{id}/replay",
    "GET /admin/consistency",
    "POST /admin/repair",
    "GET /admin/nodes",
    "GET /admin/events",
  ],
  ...["GET /health/live", "GET /health/ready", "GET /health", "GET /openapi.json", "GET /docs", "GET /docs/{file}", "GET /problems/{code}"],
  "DELETE /products/{id}",
];

describe("a tour with the document's own examples", () => {
  it("includes every operation", () => {
    expect(WALK.toSorted()).toEqual(documentation.lines.toSorted());
  });

  /** Ids by the operation that created them. */
  const made = new Map<string, string>();
  const idFor = (line: string): string => {
    const maker = line.includes("/users") ? "POST /register" : line.includes(" /orders/") ? "POST /orders" : "POST /products";
    return made.get(maker) ?? "not made yet";
  };

  /** The documented example request of an operation, with a real id in place of the example's. */
  const request = (line: string) => {
    const { parameters = [], requestBody, security, tags } = documentation.operation(line);
    const [method, template] = line.split(" ");
    const path = template!.replace(/\{(\w+)\}/g, (_all, name: string) => {
      const parameter = parameters.find((candidate) => candidate.name === name && candidate.in === "path");
      return String(parameter?.example ?? parameter?.schema.enum?.[0]);
    });
    const query = parameters.flatMap(({ name, in: place, required, schema }) =>
      place === "query" && required ? [`${name}=${encodeURIComponent(String(schema.examples?.[0]))}`] : [],
    );
    const target = [path, ...query].join("?");
    const documented = requestBody?.content["application/json"]?.example;
    const example = line === "POST /token/refresh" ? { refresh_token: refresh } : documented; // the example's token doesn't exist
    const token = tags.includes("Operations") ? admin : user;
    const real = (text: string): string => text.replaceAll(EXAMPLE_ID, idFor(line));
    return {
      method: method!,
      target: real(target),
      missing: target.replace("/1/", "/999999/"),
      options: {
        headers: example === undefined ? {} : { "Content-Type": "application/json" },
        ...(example !== undefined && { body: real(JSON.stringify(example)) }),
        ...(security.length > 0 && { token }),
      },
    };
  };
  const follows = (line: string, response: Served) => expect(documentation.differences(line, response)).toEqual([]);

  it.each(WALK)("%s responds as documented", async (line) => {
    const { method, target, missing, options } = request(line);
    if (line.endsWith("/replay")) await park();
    const operation = documentation.operation(line);
    const [success] = Object.keys(operation.responses);

    if (options.body !== undefined) {
      expect(documentation.breachesOfBody(line, "application/json", JSON.parse(options.body))).toEqual([]);
      const wrong = await ask(method, target, { ...options, body: '{"nonsense":1}' });
      expect(wrong.status).toBe(422);
      follows(line, wrong);
    }
    if (operation.security.length > 0) {
      const { token: _token, ...anonymous } = options;
      const refused = await ask(method, target, anonymous);
      expect(refused.status).toBe(401);
      follows(line, refused);
    }
    if (line.includes("{id}")) {
      const none = await ask(method, missing, options);
      expect(none.status).toBe(404);
      follows(line, none);
    }

    const response = await ask(method, target, options);
    expect(String(response.status)).toBe(success);
    follows(line, response);
    if (line.startsWith("POST /token")) ({ access_token: user, refresh_token: refresh } = response.body as Tokens);
    if (response.status === 201) made.set(line, (response.body as { id: string }).id);
    if (line === "POST /orders") await decided();
    if ("304" in operation.responses) {
      const unchanged = await ask(method, target, { ...options, headers: { "If-None-Match": response.headers.get("etag")! } });
      expect(unchanged.status).toBe(304);
      follows(line, unchanged);
    }
  });

  const TYPE = "application/x-www-form-urlencoded";
  const send = (form: Record<string, string>) =>
    ask("POST", "/token", { headers: { "Content-Type": TYPE }, body: new URLSearchParams(form).toString() });

  it("accepts the documented forms", async () => {
    const login = { grant_type: "password", username: "ada@example.com", password: "battery staple" };
    const first = await send(login);
    const renewal = { grant_type: "refresh_token", refresh_token: (first.body as Tokens).refresh_token };
    for (const [form, response] of [
      [login, first],
      [renewal, await send(renewal)],
    ] as const) {
      expect(documentation.breachesOfBody("POST /token", TYPE, form)).toEqual([]);
      expect(response.status).toBe(200);
      follows("POST /token", response);
    }
  });

  it("has the errors of a form", async () => {
    const forms: Record<string, string>[] = [
      { grant_type: "password" },
      { grant_type: "refresh_token", refresh_token: "unknown" },
      { grant_type: "another" },
    ];
    for (const form of forms) {
      const response = await send(form);
      expect([response.status, response.headers.get("content-type")]).toEqual([400, "application/json; charset=utf-8"]);
      follows("POST /token", response);
    }
  });

  async function decided(): Promise<void> {
    const client = shop.client();
    client.token = user;
    await client.decided(made.get("POST /orders")!);
  }

  /** Parks the first outbox row. */
  async function park(): Promise<void> {
    const database = new Postgres(shop.databases.orders.url);
    await database.connect();
    await database.query("update outbox set state = 'PARKED', settled_at = null where id = 1");
    await database.end();
  }
});

describe("the page", () => {
  const FILES = [
    ["docs.css", "text/css; charset=utf-8"],
    ["favicon-32x32.png", "image/png"],
    ["start.js", "text/javascript; charset=utf-8"],
    ["swagger-ui-bundle.js", "text/javascript; charset=utf-8"],
    ["swagger-ui.css", "text/css; charset=utf-8"],
  ] as const;

  it("allows only scripts and styles from this gateway, and has none inline", async () => {
    const { status, headers, body } = await ask("GET", "/docs");
    expect([status, headers.get("content-type")]).toEqual([200, "text/html; charset=utf-8"]);
    expect(headers.get("content-security-policy")?.split("; ")).toEqual([
      "default-src 'none'",
      "script-src 'self'",
      "style-src 'self'",
      "img-src 'self' data:",
      "connect-src 'self'",
      "frame-ancestors 'none'",
      "base-uri 'none'",
      "form-action 'none'",
    ]);
    expect(headers.get("referrer-policy")).toBe("no-referrer");
    expect(headers.get("x-content-type-options")).toBe("nosniff");
    expect(headers.get("x-request-id")).toMatch(/^[0-9a-f-]{36}$/);
    expect(body).not.toMatch(/<script[^>]*>[^<]|<style|\son\w+=|\sstyle=|https?:/i);
  });

  it("refers only to files of this gateway, which have the right types", async () => {
    const body = String((await ask("GET", "/docs")).body);
    const files = [...body.matchAll(/(?:src|href)="([^"]*)"/g)].map(([, file]) => file!);
    expect(files.toSorted()).toEqual(FILES.map(([file]) => `/docs/${file}`));
    for (const [file, type] of FILES) {
      const response = await ask("GET", `/docs/${file}`);
      expect([file, response.status, response.headers.get("content-type")]).toEqual([file, 200, type]);
      expect(Number(response.headers.get("content-length"))).toBeGreaterThan(50);
      expect(response.headers.get("x-content-type-options")).toBe("nosniff");
    }
  });

  it("runs its own script first, before anything is shown, and Swagger UI when the page is there", async () => {
    const body = String((await ask("GET", "/docs")).body);
    const scripts = [...body.matchAll(/<script src="([^"]*)"( defer)?>/g)].map(([, file, defer]) => [file, defer !== undefined]);
    expect(scripts).toEqual([
      ["/docs/start.js", false],
      ["/docs/swagger-ui-bundle.js", true],
    ]);
  });

  it.each([
    ..."index.html|package.json|swagger-ui.js|constructor|__proto__|START.JS|start.js%00|..%2fpackage.json|%2e%2e".split("|"),
    ..."../package.json|..\\package.json|%2e%2e/package.json|//etc/passwd|swagger-ui.css/x".split("|"),
  ])("/docs/%s does not exist", async (file) => {
    const { hostname, port } = new URL(shop.url);
    const [status, type] = await new Promise<unknown[]>((resolve, reject) => {
      // Not with fetch, which would normalise the path.
      get({ hostname, port, path: `/docs/${file}` }, (res) => {
        res.resume();
        resolve([res.statusCode, res.headers["content-type"]]);
      }).on("error", reject);
    });
    expect([status, type]).toEqual([404, "application/problem+json"]);
  });
});
