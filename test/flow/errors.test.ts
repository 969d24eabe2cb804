import { connect } from "node:net";
import { ERRORS } from "../../contracts/errors";
import { brotliCompressSync, deflateSync, gzipSync } from "node:zlib";
import type { Middleware } from "moleculer";
import { Client as Postgres } from "pg";
import { NIL_ID } from "../../contracts/contract";
import type { ApiResponse, Client } from "../../testkit/client";
import { testId } from "../../testkit/ids";
import { Documentation } from "../../testkit/openapi";
import { ADMIN } from "../../testkit/admin";
import { startShop, type Shop, type ShopOptions } from "../../testkit/shop";

/*
 * The table "Errors" of the API, and under each code requests that get it: user, method, path, a header between @, body. One
 * thing is wrong in each line. "<a|b>" expands to a line for each. :lamp is the id of the seller's product, :order of the buyer's
 * order, :buyer and :admin of users, :none of nothing; :LAMP is in upper case, :barelamp has no hyphens, and :shortlamp lacks its end.
 * :cursor= takes JSON; other words with a colon are SPECIAL. The word canary must not appear in responses.
 */
const ROWS = String.raw`
404 Not Found: NOT_FOUND
  admin GET /<nowhere?x=canary|?x=canary|$node/list|~node/list|$node/actions|api/rest|api/$node.list|list-aliases|users/health|orders.audit>
  admin POST /<$node/list|orders/:order/audit|users/token|products/:lamp/reserve> {}
  admin POST /admin/outbox/<abc|0|-1|1.5|01|1e3|%00|1%20|1'--|9007199254740993|9223372036854775808|999999|:order>/replay {}
404 Not Found: PRODUCT_NOT_FOUND
  nobody GET /products/<abc|0|-1|1.5|1|1e3|01|%00|9007199254740993|constructor|:none|:nil|:barelamp|:shortlamp|:lamp0|{:lamp}|urn:uuid::lamp|:lamp%00|:lamp%20|%20:lamp|:lamp'--|:order>
  admin GET /products/<quote|reservations|audit|health>
  seller <PATCH|DELETE> /products/<1|:barelamp|:none|:nil> {}
  seller POST /products/<1|:barelamp|:none|:nil>/stock {"delta":1}
  seller GET /products/<1|:barelamp|:none|:nil>/stock
  buyer POST /orders {"items":[{"product_id":"<:none|:nil|:order>","quantity":1}]}
404 Not Found: ORDER_NOT_FOUND
  buyer GET /orders/<abc|0|-1|1.5|1|1e3|01|%00|9007199254740993|constructor|:none|:nil|:bareorder|:shortorder|:order0|{:order}|urn:uuid::order|:order%00|:order%20|%20:order|:order'--|:lamp>
  buyer POST /orders/<abc|0|-1|1.5|1|1e3|01|%00|9007199254740993|constructor|:none|:nil|:bareorder|:shortorder|:order0|{:order}|urn:uuid::order|:order%00|:order%20|%20:order|:order'-->/cancel
  admin GET /orders/<audit|health>
  seller GET /orders/:order<|/events>
  buyer GET /orders/<1|:bareorder|:none|:nil>/events
  seller POST /orders/:order/cancel
404 Not Found: USER_NOT_FOUND
  admin PATCH /admin/users/<abc|0|-1|1.5|1|1e3|01|%00|9007199254740993|constructor|:none|:nil|:barebuyer|:shortbuyer|:buyer0|{:buyer}|urn:uuid::buyer|:buyer%00|:buyer%20|%20:buyer|:buyer'--|:lamp> {"disabled":true}
405 Method Not Allowed: METHOD_NOT_ALLOWED
  nobody <PUT|PATCH|DELETE> /products<|/> {}
  nobody <POST|PUT> /products/<:lamp|%zz> {}
  admin POST /products/<quote|adjust> {}
  admin <PATCH|DELETE> /orders/:order
  admin POST /orders/:order/events {}
  buyer <PUT|DELETE> /<token/refresh|logout> {}
  buyer GET /<token/refresh|logout|me/password>
  buyer <POST|DELETE> /me/password {}
401 Unauthorized: UNAUTHENTICATED
  nobody GET /<me|orders|orders/:order|orders/:order/events|products/:lamp/stock|admin/consistency|admin/events>
  nobody PUT /me/password {}
  nobody POST /<products|orders|products/:lamp/stock|orders/:order/cancel|admin/repair> {}
  nobody <PATCH|DELETE> /products/:lamp {}
401 Unauthorized: INVALID_CREDENTIALS
  nobody POST /token {"email":"<admin|canary>@shop.test","password":"canary"}
401 Unauthorized: INVALID_REFRESH_TOKEN
  nobody POST /token/refresh {"refresh_token":"canary"}
403 Forbidden: FORBIDDEN
  <buyer|seller> GET /admin/<consistency|events>
  <buyer|seller> POST /admin/repair {"apply":true}
  buyer <PATCH|DELETE> /products/:lamp {"name":"canary"}
  buyer POST /products/:lamp/stock {"delta":1}
  buyer GET /<products/:lamp/stock|orders?user_id=:none|orders?all=true>
409 Conflict: EMAIL_TAKEN
  nobody POST /register {"email":"<admin|Admin>@shop.test","password":"canary canary"}
409 Conflict: INSUFFICIENT_STOCK
  buyer POST /orders {"items":[{"product_id":":lamp","quantity":<1000|26},{"product_id":":lamp","quantity":26|26},{"product_id":":LAMP","quantity":26>}]}
  seller POST /products/:lamp/stock {"delta":-1000}
412 Precondition Failed: PRECONDITION_FAILED
  seller PATCH /products/:lamp @If-Match:<"99"|W/"1"|1|"canary">@ {"name":"x"}
  seller DELETE /products/:lamp @If-Match:<"99"|W/"1"|1|"canary">@
  seller POST /products/:lamp/stock @If-Match:<"99"|W/"1"|1|"canary">@ {"delta":1}
  buyer POST /orders/:order/cancel @If-Match:<"99"|W/"1"|1|"canary">@
  buyer PUT /me/password @<If-Match:"1"|If-None-Match:*>@ {"current_password":"canary","new_password":"canary canary"}
  nobody POST /<register|token> @<If-Match:"1"|If-None-Match:*>@ {"email":"canary@shop.test","password":"canary canary"}
  nobody POST /logout @If-Match:"1"@ {"refresh_token":"canary"}
  buyer POST /orders @<If-Match:"1"|If-None-Match:"1">@ {"items":[{"product_id":":lamp","quantity":1}]}
  admin PATCH /admin/users/:buyer @If-Match:"1"@ {"disabled":true}
  seller PATCH /products/:lamp @If-None-Match:<*|"99-99">@ {"name":"x"}
422 Unprocessable Content: IDEMPOTENCY_KEY_REUSED
  buyer POST /orders @Idempotency-Key:once@ {"items":[{"product_id":":lamp","quantity":2}]}
  seller POST /products @Idempotency-Key:once@ {"name":"x","price":2,"quantity":1}
  seller POST /products/<:lamp|:none>/stock @Idempotency-Key:once@ {"delta":1}
400 Bad Request: MALFORMED_JSON
  seller POST /products <canary|{"name": canary|{"name":"canary"|{"name":"canary",}>
413 Content Too Large: BODY_TOO_LARGE
  seller POST /products {"name":":KiB"}
415 Unsupported Media Type: UNSUPPORTED_MEDIA_TYPE
  seller POST /<products|products/:lamp/stock|orders>
  seller POST /products @Content-Encoding:<canary|zstd|x-gzip|compress|gzip, gzip|gzip,br|identity, gzip|gzip, identity|*>@ {}
  nobody POST /<token/refresh|logout> @Content-Type:application/x-www-form-urlencoded@ refresh_token=canary
  seller POST /products @Content-Type:<text/plain|application/x-www-form-urlencoded|application/json; charset=latin1|x/json|>@ {}
  nobody POST /token @Content-Type:<text/plain|multipart/form-data>@ {}
422 Unprocessable Content: VALIDATION_ERROR
  buyer POST /<products|orders|products/:lamp/stock|token|register> <null|[]|7|"canary"|{}|:nested|{"items":[:nested]}|{"items":[]}|{"items":{}}>
  nobody POST /register {"email":"canary@shop.test","password":"canary canary","<role|id|user_id|created_at|email_key>":"admin"}
  nobody POST /token {"email":"canary@shop.test","password":"canary","<role|refresh_token|username|address>":"x"}
  nobody POST /<token/refresh|logout> <null|[]|"canary"|{}|{"refresh_token":null}|{"refresh_token":"canary","role":"admin"}>
  seller POST /products {"name":"x","price":1,"quantity":1,"<id|seller_id|version|user_id|status|created_at>":7}
  seller PATCH /products/:lamp {"<id":7|quantity":7|seller_id":7|version":7|edits":7|tags":[]|status":7|name":null|price":null>}
  seller POST /products/:lamp/stock {"delta":1,"<id|order_id|quantity|balance>":7}
  buyer POST /orders {"items":[{"product_id":":lamp","quantity":1}],"<id|user_id|status|total|price|version|idempotency_key>":7}
  buyer POST /orders {"items":[{"product_id":":lamp","quantity":1,"<price|unit_price|name|id>":1}]}
  seller POST /products {"name":"x","price":1,"quantity":1,<"__proto__":{"role":"admin"}|"constructor":{"prototype":{"role":"admin"}}>}
  buyer POST /orders {"items":[{"product_id":":lamp","quantity":1,<"__proto__":{"role":"admin"}|"constructor":{"prototype":{"role":"admin"}}>}]}
  nobody POST /token {"email":"a@b.co","password":"canary",<"__proto__":{"role":"admin"}|"constructor":{"prototype":{"role":"admin"}}>}
  seller POST /products {"name":"x","price":1,"quantity":1,"<description|category|sku>":"canary\u0000"}
  seller PATCH /products/:lamp {"<name|description|category|sku>":"\u0000canary"}
  seller POST /products/:lamp/stock {"delta":1,"reason":"\u0000canary"}
  nobody POST /register {"email":"canary<\u0000|\ud800>@shop.test","password":"canary canary"}
  nobody POST /<register|token> {"email":"canary@shop.test","password":"canary\u0000canary"}
  seller POST /products {"name":"x","quantity":1,"price":<0.001|10.000000001|1e308|-1|"1"|1e7|null|true>}
  buyer POST /orders/:order/cancel {"reason":"no longer needed"}
  admin POST /admin/outbox/1/replay {"at_once":true}
  seller POST /products {"name":"x","price":1,"quantity":<1.5|2147483648|-1|"1"|null|1e308>}
  seller POST /products/:lamp/stock {"delta":<0|1.5|2147483648|-2147483648|"1"|null|1e308>}
  buyer POST /orders {"items":[{"product_id":":lamp","quantity":<0|1.5|-1|10001|2147483648|"1">}]}
  buyer POST /orders {"items":[{"product_id":<0|1|1.5|-1|9223372036854775808|null|true|{}|[":lamp"]|""|"1"|":barelamp"|":shortlamp"|":lamp0"|"{:lamp}"|"urn:uuid::lamp"|" :lamp"|":lamp\n">,"quantity":1}]}
400 Bad Request: BAD_REQUEST
  nobody GET /products/%E0%A4%A
  seller POST /products @Content-Encoding:<gzip|deflate|br>@ canary
  buyer GET /orders/:order/events @Last-Event-ID:<|x|-1|1.5|1, 2|1e3|0x1|9999999999999999>@
  buyer POST /orders @Idempotency-Key:<|é|a b|a,b c|:256>@ {"items":[{"product_id":":lamp","quantity":1}]}
  seller POST /products @Idempotency-Key:<|é|a b|a,b c|:256>@ {"name":"x","price":1,"quantity":1}
  seller POST /products/:lamp/stock @Idempotency-Key:<|:256>@ {"delta":1}
  buyer POST /orders/:order/cancel @Idempotency-Key:<|:256>@
  admin POST /admin/outbox/1/replay @Idempotency-Key:<|:256>@ {}
  nobody GET /products?<page=2|constructor=1|__proto__=1|q[a]=1|limit=0|limit=101|limit=x|limit=|limit=1&limit=2|q=a&q=b>
  nobody GET /products?<sort=canary|sort=name;drop%20table%20products|sort=name&sort=price|in_stock=maybe|cursor=|q=|q=%00canary>
  nobody GET /products?<min_price=1.001|max_price=-1|max_price=1e308|category=%00canary|category=|category=%20>
  nobody GET /products?min_price=1.01&max_price=1&limit=<1|2>
  nobody GET /products?:100&page=2
  nobody GET /<products/:lamp?page=2|.well-known/jwks.json?page=2>
  buyer GET /<me?page=2|orders?page=2|orders?created_after=2026-01-01|orders/:order?page=2|orders/:order/events?page=2>
  seller GET /products/:lamp/stock?<page=2|id=:none>
  nobody POST /<register|token|token/refresh|logout>?<email=canary@shop.test|password=canary> {}
  seller POST /products<|/:lamp/stock>?dry_run=true {"delta":1}
  seller PATCH /products/:lamp?price=1 {"name":"x"}
  seller DELETE /products/:lamp?dry_run=true
  buyer POST /orders<|/:order/cancel>?dry_run=true {}
  buyer PUT /me/password?x {}
  admin POST /admin/<repair|outbox/1/replay>?apply=true {}
  admin PATCH /admin/users/:buyer?disabled=true {}
  admin GET /<admin/outbox?page=2|admin/nodes?page=2|admin/consistency?page=2|admin/events?page=2>
  admin GET /orders?user_id=:buyer&all=true
  nobody GET /products?seller_id=<|0|1|:barelamp|:shortlamp|:lamp0|{:lamp}|urn:uuid::lamp|:lamp%00|:lamp%20or%201=1|:lamp&seller_id=:lamp>
  admin GET /admin/audit-log?actor=<|1|System|:bareadmin|:admin0>
  admin GET /orders?<status=canary|status=pending|limit=101|user_id=x|user_id=1|user_id=:bareorder|all=7|cursor=canary|status=PENDING&status=PENDING>
  seller GET /products/:lamp/stock?<limit=0|limit=x|cursor=canary|:cursor=["ledger::none",1]>
  nobody GET /products?<cursor=canary|cursor=:2000|:cursor=null|:cursor=7|:cursor={}|:cursor=[]|:cursor=["orders",1,":order"]>
  nobody GET /products?:cursor=["products:created_at"<|,1|,"x",":lamp"|,null,":lamp"|,1,1|,1,"x"|,1,":barelamp"|,1,"{:lamp}"|,1,":lamp",1|,1.5,":lamp"|,1e300,":lamp"|,8640000000000001,":lamp"|,-1,":lamp">]
  nobody GET /products?sort=<name&:cursor=["products:name_sort_key","\u0000",":lamp"]|name&:cursor=["products:name","a",":lamp"]|-name&:cursor=["products:-name_sort_key","a",1]|price&:cursor=["products:name_sort_key","a",":lamp"]>
  buyer GET /orders?:cursor=["<products:created_at",1,":order"|orders",1|orders",":order"|orders","1",":order"|orders",1,1|orders",-1,":order"|orders",1,":order",1>]
409 Conflict: ORDER_NOT_CANCELLABLE
409 Conflict: IDEMPOTENCY_IN_FLIGHT
429 Too Many Requests: TOO_MANY_REQUESTS
500 Internal Server Error: INTERNAL_ERROR
503 Service Unavailable: SERVICE_UNAVAILABLE
`;
const SPECIAL: Readonly<Record<string, string>> = {
  ":nested": "[".repeat(10_000) + "]".repeat(10_000),
  ":KiB": "x".repeat(101 * 1024),
  ":256": "x".repeat(256),
  ":2000": "x".repeat(2_000),
  ":100&": "&".repeat(100),
};
const LEAKS = /stack|node_modules|\.[jt]s\b|\\n|select |insert |update |violates|sqlstate|sequelize|nodeID|"action"|canary/i;

type Person = "nobody" | "seller" | "buyer" | "admin";

const expand = (line: string): string[] => {
  const [all, choices] = /<([^<>]*)>/.exec(line) ?? [];
  if (all === undefined || choices === undefined) return [line];
  return choices.split("|").flatMap((choice) => expand(line.replace(all, () => choice)));
};
const SECTIONS = ROWS.trim()
  .split(/\n(?! )/)
  .map((section) => {
    const [head, ...lines] = section.split("\n  ");
    const [, status, title, code] = /^(\d+) ([\w ]+): (\w+)$/.exec(head!)!;
    return { status: Number(status), title, code: code!, rows: lines.flatMap(expand) };
  });

let shop: Shop;
let people: Record<Person, Client>;
/** Ids by their names in a row. */
let ids: Record<"lamp" | "order" | "buyer" | "admin" | "none" | "nil", string>;

function withIds(text: string): string {
  const names = Object.keys(ids).join("|");
  return text.replace(new RegExp(`:(bare|short)?(${names})`, "gi"), (_all, form: string | undefined, name: string) => {
    const id = ids[name.toLowerCase() as keyof typeof ids];
    if (form === "bare") return id.replaceAll("-", "");
    if (form === "short") return id.slice(0, -1);
    return name === name.toUpperCase() ? id.toUpperCase() : id;
  });
}

/** Sends the request of a row. */
function ask(row: string): Promise<ApiResponse> {
  const [, who, method, path, name, value, raw] = /^(\w+) (\w+) (\S+)(?: @([\w-]+):(.*)@)?(?: (.*))?$/.exec(row) ?? [];
  const special = (text: string): string => text.replace(/:(nested|KiB|256|2000|100&)/, (word) => SPECIAL[word]!);
  const target = withIds(special(path!)).replace(
    /:cursor=(.*)$/,
    (_all, content: string) => `cursor=${Buffer.from(content).toString("base64url")}`,
  );
  return people[who as Person].request(method!, target, undefined, {
    ...(name !== undefined && { headers: { [name]: special(value!) } }),
    ...(raw !== undefined && { raw: withIds(special(raw)) }),
  });
}

/** Expects the response that the contract defines for a code: status, members and headers, without internals. */
function expectProblem({ status, headers, body }: ApiResponse, code: string): void {
  const { detail, errors, request_id, allowed: _allowed, shortages: _shortages, retry_after, ...rest } = body;
  const expected = SECTIONS.find((section) => section.code === code)!;
  expect({ status, ...rest }).toEqual({ type: `/problems/${code}`, title: expected.title, status: expected.status, code });
  expect(headers.get("content-type")).toBe("application/problem+json");
  expect(headers.get("x-request-id")).toBe(request_id);
  expect(detail).toMatch(/^\S.+/);
  expect(JSON.stringify(body)).not.toMatch(LEAKS);
  expect(JSON.stringify(body)).not.toContain(shop.config.namespace); // node ids begin with it
  expect((errors ?? []).length > 0).toBe(code === "VALIDATION_ERROR");
  for (const error of errors ?? []) expect(error).toMatchObject({ field: expect.any(String), message: expect.any(String) });
  expect(String(retry_after ?? "")).toBe(headers.get("retry-after") ?? "");
  expect(headers.get("www-authenticate") ?? "").toMatch(status === 401 ? /^Bearer/ : /^$/);
  expect(headers.get("allow") ?? "").toMatch(status === 405 ? /^[A-Z]+(, [A-Z]+)*$/ : /^$/);
  expect(headers.get("retry-after") ?? "").toMatch(status === 503 || status === 429 ? /^[1-9]\d*$/ : /^$/);
}

/** Sends bytes that no HTTP client would send, and reads until the other side closes. */
function overSocket(...head: string[]): Promise<ApiResponse> {
  const { hostname, port } = new URL(shop.url);
  return new Promise((resolve, reject) => {
    let response = "";
    const socket = connect(Number(port), hostname, () => socket.write(`${head.join("\r\n")}\r\n\r\n`, "latin1"));
    socket.on("data", (chunk) => (response += chunk.toString()));
    socket.on("error", reject);
    socket.on("close", () => {
      const [top = "", content = ""] = response.split("\r\n\r\n");
      const [line = "", ...lines] = top.split("\r\n");
      const headers = new Headers(lines.map((header) => header.split(/: (.*)/, 2) as [string, string]));
      resolve({ status: Number(line.split(" ")[1]), headers, body: content.startsWith("{") ? JSON.parse(content) : {} });
    });
  });
}

async function open(options?: ShopOptions): Promise<void> {
  shop = await startShop(options);
  people = { nobody: shop.client(), seller: shop.client(), buyer: shop.client(), admin: shop.client() };
  const [, buyer] = await Promise.all([people.seller.signUp(), people.buyer.signUp(), people.admin.login(ADMIN.email, ADMIN.password)]);
  const admin = String((await people.admin.get("/me")).body["id"]);
  ids = { lamp: await people.seller.createProduct(), order: "no order yet", buyer, admin, none: testId(99), nil: NIL_ID };
}

async function inDatabase(name: keyof Shop["databases"], work: (database: Postgres) => Promise<unknown>): Promise<void> {
  const database = new Postgres(shop.databases[name].url);
  await database.connect();
  await work(database).finally(() => database.end());
}

describe("in one process", () => {
  const failure: { cause?: Error } = {};
  const failing: Middleware = {
    name: "Failing",
    localAction: (next, action) =>
      function (ctx) {
        const fails = failure.cause !== undefined && action.name === "products.getMany";
        return fails ? Promise.reject(failure.cause!) : (next.call(this, ctx) as unknown);
      },
  };
  let orderId: string;
  let documentation: Documentation;

  beforeAll(async () => {
    await open({ broker: { middlewares: [failing] } });
    documentation = await Documentation.of(shop.url);
    orderId = String((await people.buyer.order(ids.lamp, 1, { headers: { "Idempotency-Key": "once" } })).body["id"]);
    ids.order = orderId;
    await people.seller.post("/products", { name: "x", price: 1, quantity: 1 }, { headers: { "Idempotency-Key": "once" } });
  });
  afterAll(() => shop.stop());

  it.each(SECTIONS.flatMap(({ code, rows }) => rows.map((row) => [row, code] as const)))("%s → %s", async (row, code) => {
    const response = await ask(row);
    expectProblem(response, code);
    const [, method, target] = row.split(" ");
    const line = documentation.lineOf(method!, target!);
    if (line !== undefined) expect(documentation.differences(line, response)).toEqual([]);
    else expect(["NOT_FOUND", "METHOD_NOT_ALLOWED"]).toContain(code);
  });

  const CODED = [
    ["gzip", gzipSync],
    ["br", brotliCompressSync],
    ["deflate", deflateSync],
    ["GZIP", gzipSync],
    ["identity", (body: string) => Buffer.from(body)],
  ] as const;
  it.each(CODED)("a body in %s is read, and may expand to 100 KiB; truncated → BAD_REQUEST", async (coding, encode) => {
    const post = (raw: Buffer) => people.seller.post("/products", undefined, { raw, headers: { "Content-Encoding": coding } });
    const product = { name: "x", price: 1, quantity: 1 };
    expect((await post(encode(JSON.stringify(product)))).status).toBe(201);
    const tooLong = (length: number) => encode(JSON.stringify({ ...product, description: "x".repeat(length) }));
    expectProblem(await post(tooLong(102_300)), "VALIDATION_ERROR");
    expectProblem(await post(tooLong(102_400)), "BODY_TOO_LARGE");
    if (coding !== "identity") expectProblem(await post(encode(JSON.stringify(product)).subarray(0, -5)), "BAD_REQUEST");
  });

  it("an unknown coding is distinguished from an unknown type by the header", async () => {
    const post = async (headers: Record<string, string>) =>
      (await people.seller.post("/products", undefined, { raw: "{}", headers })).headers.get("accept-encoding");
    expect(await post({ "Content-Encoding": "zstd" })).toBe("gzip, br, deflate");
    expect(await post({ "Content-Type": "text/plain" })).toBeNull();
  });

  it.each([
    ["no JSON", "{", {}],
    ["in an unknown coding", "x", { "Content-Encoding": "zstd" }],
    ["that is too large", "x".repeat(200_000), { "Content-Type": "text/plain" }],
  ])("a body %s is ignored if the route takes none", async (_what, raw, headers) => {
    expectProblem(await people.seller.request("DELETE", `/products/${ids.none}`, undefined, { raw, headers }), "PRODUCT_NOT_FOUND");
  });

  const product = (name: string): string => `{"name":${name},"price":1,"quantity":1}`;
  it.each([
    ["a byte order mark", 201, Buffer.from(`\ufeff${product('"x"')}`), "application/json"],
    ["UTF-16", 415, Buffer.from(product('"é"'), "utf16le"), "application/json; charset=UTF-16LE"],
    ["a field twice, of which the last counts", 201, Buffer.from(`{"price":-1,${product('"x"').slice(1)}`), "application/json"],
    ["bytes that are no UTF-8", 400, Buffer.from(product('"\xff\xc0"'), "latin1"), "application/json"],
    ["half a character", 422, Buffer.from(product('"\\ud800"')), "application/json"],
    ["a number of 10,000 digits", 422, Buffer.from(product(`"x"`).replace("1", "1".repeat(10_000))), "application/json"],
    ["an unknown charset", 415, Buffer.from(product('"x"')), "application/json; charset=utf-99"],
    ["a parameter that can't be read", 201, Buffer.from(product('"x"')), 'application/json; charset; =; x="'],
    ["nothing", 422, Buffer.alloc(0), "application/json"],
  ] as const)("a body with %s → %i", async (_what, status, raw, type) => {
    const response = await people.seller.post("/products", undefined, { raw, headers: { "Content-Type": type } });
    expect(response.status).toBe(status);
  });

  it("an order whose key is being written by another request → IDEMPOTENCY_IN_FLIGHT", async () => {
    await inDatabase("orders", async (other) => {
      await other.query(
        "begin; insert into orders (user_id, idempotency_key, request_hash, lines_digest, total_cents) select user_id, 'held', '', '', 0 from orders limit 1",
      );
      expectProblem(await people.buyer.order(ids.lamp, 1, { headers: { "Idempotency-Key": "held" } }), "IDEMPOTENCY_IN_FLIGHT");
    });
  });

  it("a REJECTED order that is cancelled → ORDER_NOT_CANCELLABLE", async () => {
    await people.buyer.decided(orderId);
    await inDatabase("orders", (database) => database.query("update orders set status = 'REJECTED'"));
    expectProblem(await people.buyer.post(`/orders/${orderId}/cancel`), "ORDER_NOT_CANCELLABLE");
  });

  it("an unexpected error → INTERNAL_ERROR, and nothing of it is revealed", async () => {
    failure.cause = new Error("select canary from users");
    const response = await people.nobody.get(`/products/${ids.lamp}`);
    delete failure.cause;
    expectProblem(response, "INTERNAL_ERROR");
  });

  it.each([
    ["no HTTP", "BAD_REQUEST", "canary"],
    ["two lengths", "BAD_REQUEST", "POST /token HTTP/1.1|Host: a|Content-Length: 3|Transfer-Encoding: chunked||0"],
    ["24 KB of headers", "BAD_REQUEST", `GET / HTTP/1.1|Host: a|X-Canary: ${"canary".repeat(4_000)}`],
    ["no Host", "BAD_REQUEST", "GET /me HTTP/1.1|Connection: close"],
    ["two Hosts", "BAD_REQUEST", "GET /me HTTP/1.1|Host: a|HOST: a|Connection: close"],
    ["two Hosts, at the most frequent read", "BAD_REQUEST", `GET /products/${testId(1)} HTTP/1.1|Host: a|Host: b|Connection: close`],
    ["a Host that is none", "BAD_REQUEST", "GET /me HTTP/1.1|Host: a b|Connection: close"],
    ["a Host with a path", "BAD_REQUEST", `GET /products/${testId(1)} HTTP/1.1|Host: a/b|Connection: close`],
    ["an empty Host", "UNAUTHENTICATED", "GET /me HTTP/1.1|Host:|Connection: close"],
    ["an IPv6 address with a port as Host", "UNAUTHENTICATED", "GET /me HTTP/1.1|Host: [::1]:8000|Connection: close"],
    ["a target in absolute form", "UNAUTHENTICATED", "GET http://shop.example/me HTTP/1.1|Host: a|Connection: close"],
    ["a target in absolute form without a path", "NOT_FOUND", "GET https://shop.example?q=1 HTTP/1.1|Host: a|Connection: close"],
    ["an asterisk with another method than OPTIONS", "BAD_REQUEST", "GET * HTTP/1.1|Host: a|Connection: close"],
    ["a target that is no path", "BAD_REQUEST", "GET ftp://shop.example/me HTTP/1.1|Host: a|Connection: close"],
    ["an unknown expectation", "NOT_FOUND", "GET /nowhere HTTP/1.1|Host: a|Expect: canary|Connection: close"],
    ["a rare method", "METHOD_NOT_ALLOWED", "TRACE /products HTTP/1.1|Host: a|Connection: close"],
  ])("%s over a raw socket → %s", async (_what, code, head) => {
    expectProblem(await overSocket(...head.split("|")), code);
  });

  it("the type of a problem leads to a page that explains it; no other code has one", async () => {
    for (const code of Object.keys(ERRORS)) {
      const response = await fetch(`${shop.url}/problems/${code}`);
      expect([response.status, response.headers.get("content-type")]).toEqual([200, "text/html; charset=utf-8"]);
      const page = await response.text();
      expect(page).toContain(`<h1>${code}</h1>`);
      expect(page).toContain('<meta name="color-scheme" content="light dark">'); // dark where the browser prefers it
    }
    expectProblem(await people.nobody.get("/problems/constructor"), "NOT_FOUND");
  });

  it("what a program needs is data in the problem: shortages, values and bounds", async () => {
    const { lamp } = ids;
    const short = await people.buyer.order(lamp, 9_999);
    expect(short.body["shortages"]).toEqual([{ product_id: lamp, wanted: 9_999, available: expect.any(Number) }]);
    const { body } = await people.buyer.order(lamp, 10_001);
    expect(body["errors"]).toEqual([{ field: "items[0].quantity", message: "must be <= 10000", limit: 10_000 }]);
    const list = await people.buyer.get("/orders?status=LOST");
    expect(list.body).toMatchObject({ code: "BAD_REQUEST", allowed: ["PENDING", "CONFIRMED", "REJECTED", "CANCELLED"] });
    const role = await people.admin.patch(`/admin/users/${ids.buyer}`, { role: "owner" });
    expect(role.body["errors"]).toEqual([{ field: "role", message: "must be one of user, admin", allowed: ["user", "admin"] }]);
  });

  it("OPTIONS * responds with the methods of the server", async () => {
    const { status, headers } = await overSocket("OPTIONS * HTTP/1.1", "Host: a", "Connection: close");
    expect([status, headers.get("allow")]).toEqual([204, "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"]);
  });

  it.each([128, 32, 1])("a request id of %i characters is kept", async (length) => {
    const id = "Aa0-_.~".repeat(20).slice(0, length);
    for (const path of ["/products", "/nowhere"])
      expect((await people.nobody.get(path, { headers: { "X-Request-Id": id } })).headers.get("x-request-id")).toBe(id);
  });

  const ODD_IDS = `a b|canary;x|"canary"|<canary>|é|a,canary|a\rSet-Cookie: b|a\nSet-Cookie: b|a\r\n Set-Cookie: b|a\r\nX-Request-Id: b|:129|:3000`;
  it.each(ODD_IDS.split("|"))("the request id %j is replaced", async (odd) => {
    const id = odd.replace(/^:(\d+)$/, (_all, length: string) => "x".repeat(Number(length)));
    const head = ["GET /nowhere HTTP/1.1", "Host: a", `X-Request-Id: ${id}`, "X-Correlation-Id: canary", "Connection: close"];
    const response = await overSocket(...head);
    expectProblem(response, response.status === 400 ? "BAD_REQUEST" : "NOT_FOUND"); // some of them are invalid HTTP
    expect(response.headers.get("x-request-id")).toMatch(/^[0-9a-f-]{36}$/);
    expect(response.headers.has("set-cookie")).toBe(false);
  });

  it.each(["GET ", "GET /events", "POST /cancel"])(
    "%s of another user's order has the same response, byte for byte, as for a missing order",
    async (line) => {
      const [method, action] = line.split(" ");
      const [other, missing] = await Promise.all(
        [orderId, ids.none].map(async (id) => {
          const headers = { Authorization: `Bearer ${people.seller.token!}`, "X-Request-Id": "same" };
          const response = await fetch(`${shop.url}/orders/${id}${action!}`, { method: method!, headers });
          return [response.status, [...response.headers].filter(([name]) => name !== "date"), await response.text()];
        }),
      );
      expect(other).toEqual(missing);
    },
  );

  it("no body above has polluted an object", () => {
    expect(({} as { role?: string }).role).toBeUndefined();
  });
});

describe("when a part is unavailable", () => {
  afterAll(() => shop.stop());
  const ASKED = ["GET /me", "GET /products/:lamp", "GET /orders", 'POST /orders {"items":[{"product_id":":lamp","quantity":1}]}'];
  /** Requests something from users, products, orders, and from orders and products together. @returns the statuses */
  const each = (): Promise<number[]> =>
    Promise.all(
      ASKED.map(async (line) => {
        const since = performance.now();
        const response = await ask(`buyer ${line}`);
        expect(performance.now() - since).toBeLessThan(5_000);
        if (response.status >= 400) expectProblem(response, "SERVICE_UNAVAILABLE");
        return response.status;
      }),
    );

  /** The services and databases that /health reports as down. */
  async function down(): Promise<string[]> {
    const { status, headers, body } = await people.nobody.get("/health");
    const checks = body["checks"] as { name: string; ok: boolean; detail?: string }[];
    const names = ["gateway", "transporter", "users", "users database", "products", "products database", "orders", "orders database"];
    expect(checks.map(({ name }) => name)).toEqual(names);
    for (const { ok, detail } of checks) expect(detail === undefined).toBe(ok);
    const bad = checks.filter((check) => !check.ok).map(({ name }) => name);
    expect([status, body["status"]]).toEqual(bad.length > 0 ? [503, "unavailable"] : [200, "ok"]);
    expect(headers.get("content-type")).toMatch(/^application\/json/);
    expect((await people.nobody.get("/health/live")).body).toEqual({ status: "ok", checks: [] });
    expect((await people.nobody.get("/health/ready")).status).toBe(200);
    return bad;
  }

  it("10,000 nested arrays on their way to another node → VALIDATION_ERROR", async () => {
    await open({ nodes: [["api"], ["users"], ["products"], ["orders"]] });
    expectProblem(await ask('buyer POST /orders {"items":[:nested]}'), "VALIDATION_ERROR");
  });

  it("services stop one by one: their routes → 503 in 5 s, the other routes keep working, and /health names them", async () => {
    expect(await down()).toEqual([]);
    expect(await each()).toEqual([200, 200, 200, 201]);
    await shop.node("products").stop();
    expect(await down()).toEqual(["products", "products database"]);
    expect(await each()).toEqual([200, 503, 200, 503]);
    await shop.node("orders").stop();
    expect(await each()).toEqual([200, 503, 503, 503]);
    await shop.node("users").stop();
    expect(await each()).toEqual([503, 503, 503, 503]);
    expect(await down()).toHaveLength(6);
    expectProblem(await ask('nobody POST /token {"email":"canary","password":"canary"}'), "SERVICE_UNAVAILABLE");
  });

  it("databases hang, then stop one by one: as with services, and /health distinguishes the two", async () => {
    await shop.stop();
    await open();
    const stall = (name: keyof Shop["databases"], work: () => Promise<unknown>) =>
      inDatabase(name, async (other) => {
        await other.query(`begin; lock table ${name} in access exclusive mode`);
        await work();
      });
    const allAway = [503, 503, 503, 503];
    await stall("users", () => stall("products", () => stall("orders", async () => expect(await each()).toEqual(allAway))));
    expect(await each()).toEqual([200, 200, 200, 201]);
    await shop.databases.products.drop();
    expect(await each()).toEqual([200, 503, 200, 503]);
    expect(await down()).toEqual(["products database"]);
    await Promise.all([shop.databases.users.drop(), shop.databases.orders.drop()]);
    expect(await each()).toEqual(allAway);
    expect(await down()).toEqual(["users database", "products database", "orders database"]);
  });
});
