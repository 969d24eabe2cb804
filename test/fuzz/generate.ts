import { gzipSync } from "node:zlib";
import { MAX_ID, NIL_ID } from "../../contracts/contract";
import { misspelled, testId } from "../../testkit/ids";
import type { Documentation, Operation } from "../../testkit/openapi";
import { inAnyCase, type Fixture, type Person } from "./fixture";
import type { FuzzRequest } from "./request";
import { chance, int, pick, propertiesOf, type Random, type Schema, type Values } from "./values";

interface Parameter {
  name: string;
  in: string;
  required?: boolean;
  schema: Schema;
}

export interface GenerationContext {
  documentation: Documentation;
  fixture: Fixture;
  random: Random;
  values: Values;
}

type Fault = (request: FuzzRequest, context: GenerationContext, operation: Operation) => string | undefined;

/** The share of valid requests. It is high, since invalid ones are refused before anything interesting happens. */
const VALID = 0.5;
const FORM = "application/x-www-form-urlencoded";
/** Operations to call less often. */
const RARE = new Set(["GET /admin/consistency", "GET /health", "GET /docs/{file}", "GET /openapi.json", "GET /docs"]);

export function generate(n: number, context: GenerationContext): FuzzRequest {
  const { documentation, random } = context;
  let line = pick(random, documentation.lines);
  if (RARE.has(line) && chance(random, 0.7)) line = pick(random, documentation.lines);
  const operation = documentation.operation(line);
  const request = valid(n, line, operation, context);
  if (chance(random, VALID)) return request;
  const wanted = chance(random, 0.8) ? 1 : 2;
  for (let tries = 0; tries < 20 && request.faults.length < wanted; tries++) {
    const fault = pick(random, FAULTS)(request, context, operation);
    if (fault !== undefined) request.faults.push(fault);
  }
  if (request.faults.length > 1) delete request.refusals;
  return request;
}

/** A valid request according to the OpenAPI document. */
function valid(n: number, line: string, operation: Operation, context: GenerationContext): FuzzRequest {
  const { fixture, random, values } = context;
  const [method = "", template = ""] = line.split(" ");
  const parameters = (operation.parameters ?? []) as unknown as Parameter[];
  const request: FuzzRequest = {
    n,
    line,
    method: method === "GET" && chance(random, 0.05) ? "HEAD" : method,
    path: template.replace(/\{(\w+)\}/g, (_all, name: string) => {
      const schema = parameters.find((one) => one.in === "path" && one.name === name)?.schema ?? {};
      return name === "id" ? fixture.idFor(line, random) : encodeURIComponent(String(values.valid(schema)));
    }),
    query: [],
    headers: [["X-Request-Id", `fuzz-${n}`]],
    who: whoFor(line, operation, random),
    hasHost: true,
    faults: [],
  };
  for (const { name, in: place, schema, required = false } of parameters) {
    if (place === "query" && name !== "cursor" && (required || chance(random, 0.25)) && isFor(name, request.who))
      request.query.push([
        name,
        encodeURIComponent(PEOPLE.has(name) && chance(random, 0.7) ? somebody(fixture, random) : String(values.valid(schema))),
      ]);
    if (place === "header" && chance(random, 0.5)) request.headers.push([name, headerFor(name, request, context)]);
  }
  if (line === "GET /admin/users" && chance(random, 0.5))
    request.query = [["email", encodeURIComponent(pick(random, fixture.loginAccounts).email)]];
  const takesIfMatch = parameters.some(({ name }) => name === "If-Match");
  if (!takesIfMatch && !line.startsWith("GET") && chance(random, 0.03)) request.headers.push(["If-Match", '"7"']);
  // which contradict each other
  if (request.query.some(([name, value]) => name === "all" && value === "true"))
    request.query = request.query.filter(([name]) => name !== "user_id");
  const [min, max] = ["min_price", "max_price"].map((wanted) => request.query.find(([name]) => name === wanted));
  if (min && max && Number(min[1]) > Number(max[1])) [min[1], max[1]] = [max[1], min[1]];
  const { content } = operation.requestBody ?? {};
  if (content !== undefined) setBody(request, content, context);
  followPage(request, context);
  return request;
}

function whoFor(line: string, { security, tags }: Operation, random: Random): Person {
  if (security.length === 0) return chance(random, 0.8) ? "nobody" : "buyer";
  if (tags.includes("Operations")) return "admin";
  if (line === "PUT /me/password") return "changer";
  if (chance(random, 0.1)) return "admin";
  return line.includes("/products") ? "seller" : "buyer";
}

/** Query parameters that contain a user's id. */
const PEOPLE = new Set(["seller_id", "user_id", "actor", "subject"]);
const somebody = ({ accounts }: Fixture, random: Random): string => inAnyCase(pick(random, Object.values(accounts)).id, random);

/** Whether a user may send this parameter; some are only for admins. */
const isFor = (name: string, who: Person): boolean => who === "admin" || !/^(user_id|all)$/.test(name);

function headerFor(name: string, { path }: FuzzRequest, { fixture, random, values }: GenerationContext): string {
  const id = ID.exec(path)?.[0].toLowerCase();
  const etag = [...fixture.products, ...fixture.orders].find((one) => one.id === id)?.etag ?? '"1"';
  if (name === "If-Match") return pick(random, [etag, etag, "*", '"7"', `W/${etag}`, `"0", ${etag}`]);
  if (name === "If-None-Match") return pick(random, [etag, etag, "*", '"7"', `W/${etag}`, "x", `"0" , ${etag},`]);
  if (name === "Last-Event-ID") return String(int(random, 0, 5));
  if (name === "Idempotency-Key") return values.letters(int(random, 16, 40));
  return values.letters(10);
}

function setBody(request: FuzzRequest, content: NonNullable<Operation["requestBody"]>["content"], context: GenerationContext): void {
  const { fixture, random, values } = context;
  const form = content[FORM];
  if (form !== undefined && chance(random, 0.2)) {
    const fields = values.valid(form.schema as Schema) as Record<string, unknown>;
    const { email, password } = pick(random, fixture.loginAccounts);
    if ("username" in fields && chance(random, 0.7)) Object.assign(fields, { username: email, password });
    if ("refresh_token" in fields && chance(random, 0.8)) fields["refresh_token"] = fixture.refreshTokens.pop() ?? fields["refresh_token"];
    request.body = { form: Object.entries(fields).map(([name, value]) => [name, String(value)]) };
    return;
  }
  const schema = content["application/json"]?.schema as Schema;
  const fields = values.valid(schema) as Record<string, unknown>;
  const known = propertiesOf(values.resolve(schema));
  if ("refresh_token" in known && chance(random, 0.8)) fields["refresh_token"] = fixture.refreshTokens.pop() ?? fields["refresh_token"];
  if (request.line === "POST /token" && chance(random, 0.8)) {
    const { email, password } = pick(random, fixture.loginAccounts);
    Object.assign(fields, { email, password });
  }
  if (request.line === "POST /register" && chance(random, 0.2)) fields["email"] = pick(random, fixture.loginAccounts).email;
  if ("current_password" in known) {
    const { password } = fixture.accounts.changer; // the new password is the same, so that other requests can log in meanwhile
    Object.assign(fields, { current_password: chance(random, 0.8) ? password : "not the password", new_password: password });
  }
  if ("delta" in known && chance(random, 0.9)) fields["delta"] = pick(random, [1, 5, -1, 100, -1_000_000]);
  if (request.line === "POST /products" && chance(random, 0.7)) fields["quantity"] = int(random, 0, 2_000);
  for (const item of Array.isArray(fields["items"]) ? (fields["items"] as Record<string, unknown>[]) : [])
    Object.assign(item, {
      ...(chance(random, 0.97) && { product_id: inAnyCase(pick(random, fixture.products).id, random) }),
      ...(chance(random, 0.9) && { quantity: int(random, 1, 3) }),
    });
  request.body = { json: fields };
  const keyed = fixture.keyed.filter(({ line }) => line === request.line);
  if (keyed.length > 0 && chance(random, 0.1)) {
    const { path, key, body } = structuredClone(pick(random, keyed)); // reuse a key, for the same request or another
    request.headers = [...request.headers.filter(([name]) => name !== "Idempotency-Key"), ["Idempotency-Key", key]];
    if (chance(random, 0.7)) Object.assign(request, { path, body: { json: body } });
  }
  if (chance(random, 0.15)) request.body.coding = pick(random, ["gzip", "br", "deflate"] as const);
  if (chance(random, 0.1)) request.body.chunked = true;
}

/** Sometimes replaces path and query by a link to a next page. */
function followPage(request: FuzzRequest, { fixture, random }: GenerationContext): void {
  const pages = fixture.pages.get(`${request.line} ${request.who}`);
  // A link may be known from a request whose method was replaced by GET.
  if (!request.line.startsWith("GET ") || pages === undefined || pages.length === 0 || !chance(random, 0.3)) return;
  const [path = "", query = ""] = pick(random, pages).split("?");
  request.path = path;
  request.query = query.split("&").map((part): [string, string] => {
    const [name = "", value = ""] = part.split("=");
    return [name, value];
  });
}

/** An id in a path: a UUID, or the number of an outbox row. */
const ID = /[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|\d+/i;
const BAD_IDS = [NIL_ID, MAX_ID, "9223372036854775808", "1e3", "%00", "1%20", "999999999", "constructor", "1;2", "%e6%bc%a2", "1'--"];
const BAD_VALUES = [
  "",
  "x",
  "-1",
  "0",
  "1e3",
  "0x10",
  "%00",
  "%zz",
  "%ff",
  "9".repeat(400),
  "a".repeat(5_000),
  "%f0%9f%91%8d",
  "[]",
  "true",
  "null",
  "1,2",
];
const BAD_CURSORS = [
  '["orders",1]',
  '["orders",1,1]',
  `["orders",1,"${testId(1).replaceAll("-", "")}"]`,
  `["orders",-1,"${testId(1)}"]`,
  `["orders",1e300,"${testId(1)}"]`,
  `["orders","now","${testId(1)}"]`,
  '["products:created_at",1,1]',
  '["products:created_at",1,"\\u0000"]',
  "[]",
  "7",
  "null",
  `["products:name_sort_key","\\u0000","${testId(1)}"]`,
  `["ledger:${testId(1)}",1e300]`,
  "{",
  "",
];

const set = (request: FuzzRequest, name: string, value: string): void => {
  request.headers = [...request.headers.filter(([given]) => given !== name), [name, value]];
};

/** Each makes one part of a request invalid and returns the fault's name; undefined if the request has no such part. */
const FAULTS: readonly Fault[] = [
  // fields of a body; several times, since most rules concern them
  ...[0, 1, 2].map((): Fault => breakField),
  (request) => {
    if (!isRecord(request.body?.json)) return undefined;
    const [[name] = [], ...others] = Object.entries(request.body.json);
    if (name === undefined) return undefined;
    request.body.json = Object.fromEntries(others);
    return `without ${name}`;
  },
  (request, { random }) => {
    if (!isRecord(request.body?.json)) return undefined;
    const name = pick(random, ["role", "id", "user_id", "price_cents", "constructor", "x".repeat(3_000), "\u0000", "\ud800", ""]);
    request.body.json = { ...request.body.json, [name]: 1 };
    request.refusals = [401, 403, 404, 422];
    return "an unknown field";
  },
  (request, { random }) => {
    if (request.body === undefined) return undefined;
    request.body.json = pick(random, [null, [], 7, "x", true, [{}], [[[[]]]]]);
    delete request.body.form;
    request.refusals = [401, 403, 404, 422];
    return "no object";
  },
  (request, { random }) => {
    if (request.body?.form === undefined) return undefined;
    const name = pick(random, request.body.form)[0];
    request.body.form = [...request.body.form, ["grant_type", "password"], [name, "x"]];
    request.refusals = [400];
    return "a parameter twice";
  },
  (request, { random }) => {
    if (request.body?.form === undefined) return undefined;
    const grant = pick(random, ["", "client_credentials", "Password", "\u0000", "urn:x"]);
    request.body.form = [...request.body.form.filter(([name]) => name !== "grant_type"), ["grant_type", grant]];
    request.refusals = [400];
    return "another grant";
  },
  // encodings of a body
  (request, { random }) => {
    if (request.body === undefined) return undefined;
    const text = pick(random, [
      "",
      "{",
      "nonsense",
      '{"a":1,}',
      "[".repeat(3_000),
      "{'a':1}",
      '{"__proto__":{"role":"admin"}}',
      "\ufeff{}",
      "  ",
      '{"a":1}{"b":2}',
      "NaN",
      '{"\\u0000":1}',
    ]);
    request.body = { raw: Buffer.from(text) };
    request.refusals = [400, 401, 403, 404, 422];
    // an empty object is a valid patch, a valid dry run of a repair, and the valid body of a route whose body has no fields
    if (request.method === "PATCH" || /\/(repair|cancel|replay)$/.test(request.line)) delete request.refusals;
    return "another text";
  },
  (request, { random }) => {
    if (request.body === undefined) return undefined;
    const bytes = Buffer.from(JSON.stringify(request.body.json ?? {}));
    const [type, raw] = pick(random, [
      ["application/json; charset=utf-16le", Buffer.from(bytes.toString(), "utf16le")],
      ["application/json; charset=latin1", bytes],
      ["application/json; charset=utf-99", bytes],
      ["application/json; charset=utf-16", bytes],
      ["text/plain", bytes],
      ["", bytes],
      ["application/json;", bytes],
      ["application/json; charset", bytes],
      ["APPLICATION/JSON", bytes],
      ["application/vnd.shop+json", bytes],
      ["multipart/form-data; boundary=x", bytes],
      ["application/x-www-form-urlencoded", Buffer.from("a=1&a=1&b[c]=%zz&__proto__=1")],
      ["application/json", Buffer.concat([bytes.subarray(0, 5), Buffer.from([0xff, 0xc0, 0x80]), bytes.subarray(5)])],
      ["application/json", Buffer.concat([bytes, Buffer.alloc(102_401, " ")])],
    ] as const);
    request.body = { raw };
    set(request, "Content-Type", type);
    return `a body of ${type}`;
  },
  (request, { random }) => {
    if (request.body === undefined) return undefined;
    const coding = pick(random, ["zstd", "gzip, gzip", "gzip,identity", "x-gzip", "compress", "canary", "*"]);
    set(request, "Content-Encoding", coding);
    request.refusals = [401, 403, 415];
    return `Content-Encoding: ${coding}`;
  },
  (request, { random }) => {
    if (request.body === undefined) return undefined;
    request.body.coding = pick(random, ["gzip", "br", "deflate"] as const);
    request.body.cut = int(random, 1, 12);
    return "a body that is cut off";
  },
  (request) => {
    if (request.body === undefined) return undefined;
    request.body = { raw: gzipSync(Buffer.alloc(2_000_000)) };
    set(request, "Content-Encoding", "gzip");
    request.refusals = [401, 403, 413];
    return "a body that expands";
  },
  (request) => {
    if (request.body === undefined) return undefined;
    delete request.body;
    return "without a body";
  },
  (request, { random }) => {
    if (request.body !== undefined || request.method === "HEAD") return undefined;
    request.body = { raw: Buffer.from(pick(random, ["{", "{}", '{"limit":1}', "nonsense"])) };
    if (chance(random, 0.3)) set(request, "Content-Encoding", "zstd");
    return "an unexpected body";
  },
  // path, query, method
  (request, { random }) => {
    const [id] = ID.exec(request.path) ?? [];
    if (id === undefined || !request.line.includes("{id}")) return undefined;
    const texts = misspelled(id.includes("-") ? id : testId(1)).filter(Boolean);
    request.path = request.path.replace(id, pick(random, [...BAD_IDS, ...texts.map(encodeURIComponent)]));
    request.refusals = [400, 401, 403, 404, 413, 415, 422];
    return "a bad id";
  },
  (request, { random }) => {
    if (!/\{(file|code)\}/.test(request.line)) return undefined;
    request.path = request.path.replace(/[^/]+$/, pick(random, ["x", "%zz", "..%2fpackage.json", "constructor", "start.js%00"]));
    request.refusals = [400, 404];
    return "a bad file";
  },
  (request, { random }, operation) => {
    const names = (operation.parameters ?? []).flatMap(({ name, in: place }) => (place === "query" ? name : []));
    const name = names.length > 0 && chance(random, 0.8) ? pick(random, names) : pick(random, ["page", "__proto__", "a[b]", "%zz", ""]);
    const value =
      name === "cursor" && chance(random, 0.7) ? Buffer.from(pick(random, BAD_CURSORS)).toString("base64url") : pick(random, BAD_VALUES);
    request.query.push([name, value]);
    return `?${name}`;
  },
  (request) => {
    if (request.line !== "GET /orders" || request.who !== "buyer") return undefined;
    request.query.push(["all", "true"]);
    return "?all for a buyer";
  },
  (request, { random }) => {
    if (request.line === "") return undefined;
    request.method = pick(random, ["DELETE", "PATCH", "PUT", "POST", "GET", "OPTIONS", "TRACE", "PROPFIND"]);
    delete request.refusals;
    return `by ${request.method}`;
  },
  (request, { random }) => {
    request.path = pick(random, [
      `${request.path}/`,
      `${request.path}/x`,
      `/${request.path}`,
      request.path.toUpperCase(),
      `/api${request.path}`,
      "/~node/list",
      "/$node/list",
      "//",
      "/%2e%2e/",
      "/%zz",
    ]);
    return "another path";
  },
  // headers
  (request, { random }) => {
    const tampered = "Bearer eyJhbGciOiJub25lIn0.e30.";
    request.authorization = pick(random, [
      "",
      "Bearer",
      "Bearer x",
      "Basic YTpi",
      tampered,
      `Bearer ${"a".repeat(6_000)}`,
      "bearer  ",
      "Bearer é",
    ]);
    return "other credentials";
  },
  (request, { random }) => {
    request.who = pick(random, ["nobody", "buyer", "seller", "admin"] as const);
    return `as ${request.who}`;
  },
  (request) => {
    if (!request.line.includes("/products/{id}") || request.who !== "seller") return undefined;
    request.who = "buyer";
    return "as somebody who doesn't sell the product";
  },
  (request, { random }) => {
    const [name, value] = pick(random, [
      ["Idempotency-Key", pick(random, ["", "a b", "é", "x".repeat(256), "a, b"])],
      ["If-Match", pick(random, ["", "x", '"', '"é"', '"1"'.repeat(500), "W/", '"99999999999999999999"', '"1-"', '"1-1-1"'])],
      ["If-None-Match", pick(random, ["", "x", '"', '"é"', '"1", '.repeat(900), "**"])],
      ["Last-Event-ID", pick(random, ["", "x", "-1", "1.5", "99999999999999999", "1, 2"])],
      ["X-Request-Id", pick(random, ["", "é", "a b", "x".repeat(200), '"', "<script>"])],
      ["X-Forwarded-For", pick(random, ["1.2.3.4", "x", "", "::1, 1.2.3.4", "9".repeat(3_000)])],
      ["Origin", pick(random, ["null", "https://evil.example", "x"])],
      ["Accept", pick(random, ["text/html", "x", "application/xml;q=0"])],
      ["Range", "bytes=0-1"],
      ["Expect", pick(random, ["100-continue", "canary"])],
      ["Content-Type", pick(random, ["x", "application/json; ".repeat(300)])],
      ["X-HTTP-Method-Override", "DELETE"],
      ["Cookie", "a=b; ".repeat(500)],
      ["Upgrade-Insecure-Requests", "1"],
      ["Connection", "close"],
      ["Date", "nonsense"],
    ] as const);
    set(request, name, value);
    return `${name}: ${value.slice(0, 20)}`;
  },
  (request, { random }) => {
    if (!chance(random, 0.2)) return undefined;
    request.hasHost = false;
    request.refusals = [400];
    return "no Host";
  },
];

const isRecord = (value: unknown): value is Record<string, unknown> => typeof value === "object" && value !== null && !Array.isArray(value);

/** Replaces a field of the body, at any depth, by an invalid value. */
function breakField(request: FuzzRequest, { random, values, documentation }: GenerationContext, operation: Operation): string | undefined {
  const schema = operation.requestBody?.content["application/json"]?.schema as Schema | undefined;
  if (schema === undefined || !isRecord(request.body?.json)) return undefined;
  let holder: Record<string | number, unknown> = request.body.json;
  let fields = Object.entries(propertiesOf(values.resolve(schema)));
  if (fields.length === 0) return undefined; // a body without fields
  for (;;) {
    const [name, field] = pick(random, fields);
    const resolved = values.resolve(field);
    const items = holder[name];
    const inside = resolved["items"];
    if (Array.isArray(items) && isRecord(items[0]) && isRecord(inside) && chance(random, 0.7)) {
      holder = items[0];
      fields = Object.entries(propertiesOf(values.resolve(inside)));
      continue;
    }
    holder[name] = values.broken(field);
    if (documentation.breachesOfBody(request.line, "application/json", request.body.json).length > 0)
      request.refusals = [401, 403, 404, 422];
    return `a bad ${name}`;
  }
}
