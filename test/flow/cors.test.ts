import { connect } from "node:net";
import type { Service } from "moleculer";
import { full } from "../../mixins/fair-queue";
import type { Connections } from "../../services/api/connections/connections";
import { Cors } from "../../services/api/http/cors";
import { until } from "../../testkit/until";
import { startShop, type Shop } from "../../testkit/shop";

const ORIGIN = "https://shop.example.com";
const RATE_LIMIT = 20;
const JSON_TYPE = { "Content-Type": "application/json" };

let shop: Shop;
/** The lines logged at the levels error and fatal. */
const logged: string[] = [];

beforeAll(async () => {
  for (const method of ["log", "info", "warn", "error", "debug"] as const)
    jest.spyOn(console, method).mockImplementation((...args: unknown[]) => void logged.push(args.map(String).join(" ")));
  shop = await startShop({
    nodes: [["api"]],
    env: { CORS_ORIGINS: ORIGIN, LOG_LEVEL: "error", TRUST_PROXY: "loopback", RATE_LIMIT: String(RATE_LIMIT) },
  });
});
afterAll(async () => {
  await shop.stop();
  jest.restoreAllMocks();
});

let addresses = 0;
/** Sends a request, by default from an address of its own. */
async function ask(method: string, path: string, { body, headers, from = `203.0.113.${++addresses}` }: Asked = {}) {
  const response = await fetch(shop.url + path, {
    method,
    headers: { Origin: ORIGIN, "X-Forwarded-For": from, ...headers },
    ...(body !== undefined && { body }),
  });
  await response.arrayBuffer();
  const { status } = response;
  return { status, header: (name: string) => response.headers.get(name) };
}
interface Asked {
  headers?: Record<string, string>;
  body?: string;
  from?: string;
}

const PREFLIGHT = { "Access-Control-Request-Method": "POST" };

describe("a preflight", () => {
  it("of an allowed origin gets the allowed methods and headers, and for how long they hold", async () => {
    const { status, header } = await ask("OPTIONS", "/orders", { headers: PREFLIGHT });
    expect([status, header("access-control-allow-origin"), header("vary")]).toEqual([204, ORIGIN, "Origin"]);
    expect(header("access-control-allow-methods")).toBe("GET, HEAD, POST, PUT, PATCH, DELETE");
    expect(header("access-control-allow-headers")).toContain("Idempotency-Key");
    expect(header("access-control-max-age")).toBe("600");
    expect([header("x-content-type-options"), header("x-request-id")]).toEqual(["nosniff", expect.stringMatching(/^[0-9a-f-]{36}$/)]);
  });

  it("for a path that can't be decoded, or with a body that is too large, gets its response, and no ERROR is logged", async () => {
    logged.length = 0;
    const undecodable = await ask("OPTIONS", "/products/%zz", { headers: { "Access-Control-Request-Method": "GET" } });
    expect(logged).toEqual([]);
    expect(undecodable.status).toBe(204);
    const body = " ".repeat(102_401);
    expect((await ask("OPTIONS", "/orders", { headers: { ...PREFLIGHT, ...JSON_TYPE }, body })).status).toBe(204);
    expect(logged).toEqual([]);
  });

  it("gets its response before its body has arrived, which is not read", async () => {
    const { hostname, port } = new URL(shop.url);
    const socket = connect(Number(port), hostname);
    let text = "";
    socket.on("data", (chunk) => (text += chunk.toString()));
    socket.write(
      `OPTIONS /token HTTP/1.1\r\nHost: a\r\nOrigin: ${ORIGIN}\r\nAccess-Control-Request-Method: POST\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n{`,
    );
    try {
      await until("the response has arrived", () => text.startsWith("HTTP/1.1 204"), 5_000);
    } finally {
      socket.destroy();
    }
    await until("the connection is closed", () => gateway().connections.areIdle);
    expect(logged).toEqual([]);
  });
});

const gateway = () => shop.node("api").getLocalService("api") as unknown as Service & { connections: Connections };

describe("a page of an allowed origin can read", () => {
  const token = { Authorization: "Bearer a.b.c" };
  const readable = ({ header }: Awaited<ReturnType<typeof ask>>) => [header("access-control-allow-origin"), header("vary")];

  it.each<[status: number, why: string, method: string, path: string, asked: Asked]>([
    [200, "the requested resource", "GET", "/openapi.json", {}],
    [401, "for an invalid token", "GET", "/me", { headers: token }],
    [404, "for an unknown path", "GET", "/nowhere", {}],
    [405, "for an unsupported method", "DELETE", "/token", {}],
    [413, "for a body that is too large", "POST", "/token", { headers: JSON_TYPE, body: " ".repeat(102_401) }],
    [415, "for a body of the wrong type", "POST", "/token", { headers: { "Content-Type": "text/plain" }, body: "x" }],
  ])("%i, %s", async (status, _why, method, path, asked) => {
    const response = await ask(method, path, asked);
    expect(response.status).toBe(status);
    expect(readable(response)).toEqual([ORIGIN, "Origin"]);
    expect(response.header("access-control-expose-headers")).toBe("ETag, Link, Location, Retry-After, X-Request-Id, Idempotent-Replayed");
    expect(response.header("access-control-allow-methods")).toBeNull(); // the request is no preflight
  });

  it("429, with the time to retry after", async () => {
    const from = "198.51.100.1";
    for (let n = 0; n < RATE_LIMIT; n++) await ask("GET", "/nowhere", { from });
    const response = await ask("GET", "/nowhere", { from });
    expect(response.status).toBe(429);
    expect(readable(response)).toEqual([ORIGIN, "Origin"]);
    expect(response.header("access-control-expose-headers")).toContain("Retry-After");
  });

  it("the responses to any number of preflights, since they count towards no limit", async () => {
    const from = "198.51.100.2";
    for (let n = 0; n < 2 * RATE_LIMIT; n++) expect((await ask("OPTIONS", "/orders", { from, headers: PREFLIGHT })).status).toBe(204);
    expect((await ask("GET", "/nowhere", { from })).status).toBe(404);
  });

  it("503 of a gateway that is full", async () => {
    jest.spyOn(gateway().connections, "check").mockImplementationOnce(() => {
      throw full();
    });
    const response = await ask("GET", "/products");
    expect(response.status).toBe(503);
    expect(readable(response)).toEqual([ORIGIN, "Origin"]);
  });
});

it.each(["https://shop.example.co", "https://evil.example", "null"])(
  "the origin %s, which is not allowed, gets no CORS header",
  async (origin) => {
    const headers = { Origin: origin };
    const responses = [
      await ask("OPTIONS", "/orders", { headers: { ...headers, ...PREFLIGHT } }),
      await ask("GET", "/openapi.json", { headers }),
      await ask("GET", "/me", { headers }),
      await ask("GET", "/nowhere", { headers }),
    ];
    expect(responses.map(({ status }) => status)).toEqual([204, 200, 401, 404]);
    for (const { header } of responses)
      for (const name of ["origin", "methods", "headers"]) expect([name, header(`access-control-allow-${name}`)]).toEqual([name, null]);
  },
);

it("a refused origin is logged once, with the variable that allows it", async () => {
  const warn = jest.spyOn(gateway().logger, "warn").mockReturnValue(undefined);
  for (let n = 0; n < 3; n++) await ask("GET", "/nowhere", { headers: { Origin: "https://front.example" } });
  expect(warn.mock.calls).toEqual([[expect.stringMatching(/https:\/\/front\.example .*CORS_ORIGINS/)]]);
  warn.mockRestore();
});

it.each([
  ["outside production", false, "http://localhost:5173"],
  ["in production", true, null],
])("a page of localhost, on any port, may read responses %s: %s", (_where, production, expected) => {
  const cors = new Cors({ production, corsOrigins: [] }, () => undefined);
  const allowed = (origin: string) => cors.headers({ headers: { origin } })["Access-Control-Allow-Origin"] ?? null;
  expect(allowed("http://localhost:5173")).toBe(expected);
  for (const origin of ["http://localhost.evil.example", "https://localhost:1.evil.example", "http://localhost:1@evil.example"])
    expect(allowed(origin)).toBeNull();
});
