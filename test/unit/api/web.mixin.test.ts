import { readdirSync, readFileSync } from "node:fs";
import type { Server } from "node:http";
import path from "node:path";
import { ServiceBroker, type ServiceSchema } from "moleculer";
import ApiGateway from "moleculer-web";
import { loadConfig } from "../../../config";
import api from "../../../services/api/api.service";
import { ROOT } from "../../../testkit/repository";

/** The version that services/api/web.mixin.ts was written against. */
const VERSION = "0.11.0";
const CHECKLIST = `moleculer-web is not ${VERSION}. web.mixin.ts uses its private members: compare src/index.js and src/alias.js.
- created() makes the server, with httpHandler as its only listener for requests, and an alias for each entry of the settings, which keeps
  the entry's spec; started() calls server.listen(port, ip, callback).
- resolveAlias(url, method) returns false or { alias, params }, or throws UNABLE_DECODE_PARAM (http/problem.ts).
- routeHandler(ctx, route, req, res, { alias, params }) reads the body into req.body, sets req.$params and req.$alias, awaits authenticate
  and then authorize, each with (ctx, route, req, res, alias), and calls the alias's handler with (req, res, next). It resolves when the
  response ends, and rejects with what next gets.
- No new setting is on by default, and no new action exists that has to be disabled.
Change web.mixin.ts where needed, run all tests, and set VERSION in this test.`;

interface Gateway {
  server: Server;
  routes: { authentication: unknown; authorization: unknown }[];
  aliases: { method: string; fullPath: string; re: RegExp; route: unknown; spec: { auth: string } }[];
  actions: object;
  resolveAlias(url: string, method: string): unknown;
  receive: unknown;
  authenticate: unknown;
  authorize: unknown;
}

const broker = new ServiceBroker({ logger: false, validator: false });
const schema = api(broker, loadConfig({}));
const methods: Record<string, (...args: unknown[]) => unknown> = ApiGateway.methods ?? {};

describe("moleculer-web", () => {
  it("has the version that web.mixin.ts was written against", () => {
    if (ApiGateway.metadata.$package.version !== VERSION) throw new Error(CHECKLIST);
  });

  it.each([
    ["resolveAlias", 1], // the method has a default
    ["routeHandler", 5],
  ])("has the method %s with %i parameters", (name, arity) => {
    expect(methods[name]?.length).toBe(arity);
  });

  it("has no actions but those that are disabled", () => {
    expect(Object.keys(ApiGateway.actions ?? {}).sort()).toEqual(["addRoute", "listAliases", "removeRoute", "rest"]);
  });

  it("has the error type of a path that can't be decoded", () => {
    expect(ApiGateway.Errors.ERR_UNABLE_DECODE_PARAM).toBe("UNABLE_DECODE_PARAM");
  });

  it("makes a server, a route and aliases of the expected shape, and only the gateway's own action", () => {
    const service: unknown = broker.createService(schema as unknown as ServiceSchema);
    const gateway = service as Gateway;
    expect(gateway.server.listeners("request")).toEqual([gateway.receive]);
    const [route, ...others] = gateway.routes;
    expect([route?.authentication, route?.authorization, others]).toEqual([gateway.authenticate, gateway.authorize, []]);
    const alias = gateway.aliases.find(({ method, fullPath }) => `${method} ${fullPath}` === "POST /products/:id/stock");
    expect(alias?.spec.auth).toBe("user");
    expect(alias?.route).toBe(route);
    expect([alias?.re.test("/products/7/stock"), alias?.re.test("/products/7")]).toEqual([true, false]);
    expect(gateway.resolveAlias("/products/7/stock", "POST")).toEqual({ alias, params: { id: "7" } });
    expect(gateway.resolveAlias("/products/7/stock", "PUT")).toBe(false);
    expect(Object.keys(gateway.actions)).toEqual(["activity"]);
  });
});

it("no method of the gateway replaces one of moleculer-web's", () => {
  const own = [schema, ...(schema.mixins ?? [])].flatMap((part) => Object.keys(part.methods ?? {}));
  expect(own.length).toBeGreaterThan(10);
  expect(own.filter((name) => Object.hasOwn(methods, name))).toEqual([]);
});

it("only web.mixin.ts imports moleculer-web or names its private members", () => {
  const folder = path.join(ROOT, "services/api");
  const names = [
    /["']moleculer-web/,
    /\b(httpHandler|routeHandler|aliasHandler|resolveAlias|send404|errorHandler|sendError|sendResponse|parsedUrl)\b/,
    /\$(alias|ctx|params|route)\b|\.aliases\b/,
  ];
  const users = readdirSync(folder, { recursive: true, encoding: "utf8" }).filter((file) => {
    if (!file.endsWith(".ts")) return false;
    const source = readFileSync(path.join(folder, file), "utf8");
    return names.some((name) => name.test(source));
  });
  expect(users).toEqual(["web.mixin.ts"]);
});
