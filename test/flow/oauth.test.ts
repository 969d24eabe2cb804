import { gzipSync } from "node:zlib";
import jwt from "jsonwebtoken";
import type { AuthorizationServer } from "../../contracts/oauth";
import { metadataRoutes } from "../../services/api/routes/token";
import type { ApiResponse, Client } from "../../testkit/client";
import { ADMIN } from "../../testkit/admin";
import { startShop, type Shop } from "../../testkit/shop";

/*
 * OAuth 2.0: the forms of POST /token, and the metadata of the authorization server.
 */

const ISSUER = "https://shop.example.com";
const FORM = "application/x-www-form-urlencoded";
const ADMIN_GRANT = { grant_type: "password", username: ADMIN.email, password: ADMIN.password };

let shop: Shop;
let nobody: Client;

beforeAll(async () => {
  shop = await startShop({ env: { PUBLIC_URL: ISSUER } });
  nobody = shop.client();
});
afterAll(() => shop.stop());

type Fields = Record<string, string> | [string, string][] | string;

const send = (
  fields: Fields,
  { type = FORM, headers = {} }: { type?: string; headers?: Record<string, string> } = {},
): Promise<ApiResponse> =>
  nobody.post("/token", undefined, { raw: new URLSearchParams(fields).toString(), headers: { "Content-Type": type, ...headers } });

/** Sends a form as it is, without encoding it. */
const sendRaw = (raw: string | Buffer, headers: Record<string, string> = {}): Promise<ApiResponse> =>
  nobody.post("/token", undefined, { raw, headers: { "Content-Type": FORM, ...headers } });

function expectTokens({ status, headers, body }: ApiResponse): void {
  expect([status, headers.get("cache-control"), headers.get("pragma")]).toEqual([200, "no-store", "no-cache"]);
  expect(body).toEqual({
    access_token: expect.any(String),
    token_type: "bearer",
    expires_in: 900,
    refresh_token: expect.stringMatching(/^[\w-]{43}$/),
  });
}

/** Expects exactly the error of RFC 6749, section 5.2. */
function expectError({ status, headers, body }: ApiResponse, error: string, description: RegExp = /./): void {
  expect([status, body]).toEqual([400, { error, error_description: expect.stringMatching(description) }]);
  expect(body["error_description"]).toMatch(/^[\x20-\x21\x23-\x5b\x5d-\x7e]+$/);
  expect(headers.get("content-type")).toBe("application/json; charset=utf-8");
  expect([headers.get("cache-control"), headers.get("pragma")]).toEqual(["no-store", "no-cache"]);
  expect(headers.get("x-request-id")).toMatch(/^[0-9a-f-]{36}$/);
}

describe("a form with a password", () => {
  it("gets tokens that work", async () => {
    const response = await send(ADMIN_GRANT);
    expectTokens(response);
    expect((await nobody.get("/me", { token: String(response.body["access_token"]) })).body["role"]).toBe("admin");
  });

  it.each<[string, Record<string, string>]>([
    ["unknown parameters", { role: "admin", address: "1.2.3.4", constructor: "x", "": "x" }],
    ["a client and a scope", { client_id: "a", client_secret: "b", scope: "c d" }],
    ["a refresh token", { refresh_token: "unknown" }],
    ["an unknown parameter without a value", { resource: "" }],
  ])("and with %s gets tokens all the same", async (_what, more) => {
    expectTokens(await send({ ...ADMIN_GRANT, ...more }));
  });

  it("and with an unknown parameter that occurs twice gets tokens all the same", async () => {
    expectTokens(await send([...Object.entries(ADMIN_GRANT), ["resource", "a"], ["resource", "b"]]));
  });

  it("and with a parameter that occurs a second time without a value gets tokens all the same", async () => {
    expectTokens(await send([["username", ""], ...Object.entries(ADMIN_GRANT), ["scope", ""], ["scope", ""]]));
  });

  it("and a query gets tokens all the same", async () => {
    const raw = new URLSearchParams(ADMIN_GRANT).toString();
    expectTokens(await nobody.post("/token?tenant=a", undefined, { raw, headers: { "Content-Type": FORM } }));
  });

  it("may encode every character, and spaces as +", async () => {
    const person = { email: "plus+tag@shop.test", password: "pass word +%&=ü" };
    expect((await nobody.post("/register", person)).status).toBe(201);
    expectTokens(await send({ grant_type: "password", username: person.email, password: person.password }));
    const encoded = [...Buffer.from(person.password)].map((byte) => `%${byte.toString(16).padStart(2, "0")}`).join("");
    expectTokens(await sendRaw(`grant_type=password&username=plus%2Btag@shop.test&password=${encoded}`));
    expectTokens(await sendRaw("grant_type=password&username=plus%2Btag@shop.test&password=pass+word+%2b%25%26=%C3%BC&"));
  });

  it.each<[string, Fields, error: string, description: RegExp]>([
    ["a wrong password", { ...ADMIN_GRANT, password: "wrong" }, "invalid_grant", /password is wrong/],
    ["an unknown e-mail", { ...ADMIN_GRANT, username: "nobody@shop.test" }, "invalid_grant", /password is wrong/],
    ["no password", { grant_type: "password", username: ADMIN.email }, "invalid_request", /^password is missing$/],
    ["no name", { grant_type: "password", password: ADMIN.password }, "invalid_request", /^username is missing$/],
    ["an empty name", { ...ADMIN_GRANT, username: "" }, "invalid_request", /^username is missing$/],
    ["a blank name", { ...ADMIN_GRANT, username: "  " }, "invalid_request", /^username /],
    ["an empty password", { ...ADMIN_GRANT, password: "" }, "invalid_request", /^password is missing$/],
    ["a name that is too long", { ...ADMIN_GRANT, username: "x".repeat(255) }, "invalid_request", /^username /],
    ["a password that is too long", { ...ADMIN_GRANT, password: "x".repeat(73) }, "invalid_request", /^password /],
    ["the e-mail under another name", { grant_type: "password", email: ADMIN.email, password: "x" }, "invalid_request", /^username is/],
    ["two names", [...Object.entries(ADMIN_GRANT), ["username", "other"]], "invalid_request", /^username occurs more than once$/],
    ["two equal scopes", [...Object.entries(ADMIN_GRANT), ["scope", "a"], ["scope", "a"]], "invalid_request", /^scope occurs/],
    ["no grant", { username: ADMIN.email, password: ADMIN.password }, "invalid_request", /^grant_type is missing$/],
    ["an empty grant", { ...ADMIN_GRANT, grant_type: "" }, "invalid_request", /^grant_type is missing$/],
    ["another grant", { ...ADMIN_GRANT, grant_type: "client_credentials" }, "unsupported_grant_type", /password or refresh_token/],
    ["a grant in upper case", { ...ADMIN_GRANT, grant_type: "PASSWORD" }, "unsupported_grant_type", /password or refresh_token/],
    ["two grants", [...Object.entries(ADMIN_GRANT), ["grant_type", "password"]], "invalid_request", /^grant_type occurs/],
    ["nothing", "", "invalid_request", /^grant_type is missing$/],
  ])("and with %s → 400 and an error of OAuth", async (_what, fields, error, description) => {
    expectError(await send(fields), error, description);
  });

  it.each<[string, string | Buffer]>([
    ["a percent sign without digits", "grant_type=password&username=%zz&password=x"],
    ["escapes that are not UTF-8", "grant_type=password&username=%ff&password=x"],
    ["bytes that are not UTF-8", Buffer.from("grant_type=password&username=\xff&password=x", "latin1")],
    ["more than 1,000 parameters", `grant_type=password&${"a=1&".repeat(1_000)}`],
    ["nothing but separators", "&".repeat(2_000)],
  ])("and with %s → 400 invalid_request", async (_what, raw) => {
    expectError(await sendRaw(raw), "invalid_request");
  });

  it("that can't be decompressed → 400 invalid_request", async () => {
    const cut = gzipSync(new URLSearchParams(ADMIN_GRANT).toString()).subarray(0, -5);
    expectError(await sendRaw(cut, { "Content-Encoding": "gzip" }), "invalid_request");
  });
});

describe("a form with a refresh token", () => {
  const logIn = async (): Promise<string> => String((await send(ADMIN_GRANT)).body["refresh_token"]);
  const refresh = (refresh_token: string): Promise<ApiResponse> => send({ grant_type: "refresh_token", refresh_token });
  const sessionOf = ({ body }: ApiResponse): unknown => (jwt.decode(String(body["access_token"])) as { sid: string }).sid;

  it("gets new tokens of the same session, which can be refreshed as JSON as well", async () => {
    const first = await send(ADMIN_GRANT);
    const second = await refresh(String(first.body["refresh_token"]));
    expectTokens(second);
    expect(second.body["refresh_token"]).not.toBe(first.body["refresh_token"]);
    const third = await nobody.post("/token/refresh", { refresh_token: second.body["refresh_token"] });
    expect([third.status, sessionOf(second), sessionOf(third)]).toEqual([200, sessionOf(first), sessionOf(first)]);
  });

  it("that two tabs send at once gets the same successor in both, which works", async () => {
    const token = await logIn();
    const [one, other] = await Promise.all([refresh(token), refresh(token)]);
    expectTokens(one);
    expect([other.status, other.body["refresh_token"]]).toEqual([200, one.body["refresh_token"]]);
    expectTokens(await refresh(String(one.body["refresh_token"])));
  });

  it.each<[string, Fields, error: string]>([
    ["an unknown one", { refresh_token: "unknown" }, "invalid_grant"],
    ["none", {}, "invalid_request"],
    ["an empty one", { refresh_token: "" }, "invalid_request"],
    ["one with a NUL", { refresh_token: "a\0" }, "invalid_request"],
    ["two", "refresh_token=a&refresh_token=b", "invalid_request"],
  ])("and with %s → 400 and an error of OAuth", async (_what, fields, error) => {
    expectError(await send(`grant_type=refresh_token&${new URLSearchParams(fields).toString()}`), error);
  });

  it("that has ended → 400 invalid_grant", async () => {
    const token = await logIn();
    expect((await nobody.post("/logout", { refresh_token: token })).status).toBe(204);
    expectError(await refresh(token), "invalid_grant");
  });
});

describe("the media type of a form", () => {
  it.each(["", ";charset=utf-8", "; charset=UTF-8", "; charset=utf8", '; charset="Utf8"', ";"])("may end with %j", async (parameters) => {
    expectTokens(await send(ADMIN_GRANT, { type: `${FORM}${parameters}` }));
  });

  it.each(["iso-8859-1", "utf-16", "utf-7", "utf88", "x"])("with the charset %s → 415", async (charset) => {
    const { status, headers, body } = await send(ADMIN_GRANT, { type: `${FORM}; charset=${charset}` });
    expect([status, body["code"], headers.get("content-type")]).toEqual([415, "UNSUPPORTED_MEDIA_TYPE", "application/problem+json"]);
  });
});

describe("a problem stays a problem, also for a form,", () => {
  it.each<[string, number, () => Promise<ApiResponse>]>([
    ["if it is too large", 413, () => send({ ...ADMIN_GRANT, scope: "x".repeat(110_000) })],
    ["in an unknown coding", 415, () => sendRaw("x", { "Content-Encoding": "zstd" })],
    ["at another route", 415, () => nobody.post("/register", undefined, { raw: "email=a@b.co", headers: { "Content-Type": FORM } })],
  ])("%s → %i", async (_what, status, ask) => {
    const response = await ask();
    expect([response.status, response.headers.get("content-type")]).toEqual([status, "application/problem+json"]);
  });

  it("beyond the limit of failed logins → 429 with Retry-After", async () => {
    const limited = await startShop({ env: { RATE_LIMIT_AUTH: "1" } });
    try {
      const client = limited.client();
      const fail = () =>
        client.post("/token", undefined, {
          raw: "grant_type=password&username=a@b.co&password=x",
          headers: { "Content-Type": FORM },
        });
      expectError(await fail(), "invalid_grant");
      const { status, headers, body } = await fail();
      expect([status, body["code"]]).toEqual([429, "TOO_MANY_REQUESTS"]);
      expect(headers.get("retry-after")).toMatch(/^[1-9]\d*$/);
    } finally {
      await limited.stop();
    }
  });
});

it("JSON keeps its own errors, whatever names it has", async () => {
  const post = async (body: object): Promise<unknown[]> => {
    const { status, headers, body: problem } = await nobody.post<{ code: string }>("/token", body);
    return [status, problem.code, headers.get("content-type")];
  };
  const type = "application/problem+json";
  expect(await post({ ...ADMIN_GRANT, password: "wrong" })).toEqual([401, "INVALID_CREDENTIALS", type]);
  for (const more of [{ grant_type: "refresh_token" }, { role: "admin" }, { username: "" }])
    expect(await post({ ...ADMIN_GRANT, ...more })).toEqual([422, "VALIDATION_ERROR", type]);
});

describe("the metadata of the authorization server", () => {
  const PATH = "/.well-known/oauth-authorization-server";

  it("have the configured issuer, whatever the Host header says, and name what is served", async () => {
    const { status, headers, body } = await nobody.get<AuthorizationServer>(PATH, { headers: { "X-Forwarded-Host": "evil.example" } });
    expect([status, headers.get("content-type")]).toEqual([200, "application/json; charset=utf-8"]);
    expect(headers.get("cache-control")).toMatch(/^public, max-age=[1-9]\d*$/);
    expect(body).toEqual({
      issuer: ISSUER,
      token_endpoint: `${ISSUER}/token`,
      jwks_uri: `${ISSUER}/.well-known/jwks.json`,
      response_types_supported: [],
      grant_types_supported: ["password", "refresh_token"],
      token_endpoint_auth_methods_supported: ["none"],
      service_documentation: `${ISSUER}/docs`,
    });
    for (const url of [body.jwks_uri, body.service_documentation]) {
      expect((await fetch(shop.url + new URL(url).pathname)).status).toBe(200);
    }
  });

  it("take no query", async () => {
    expect((await nobody.get(`${PATH}?x=1`)).status).toBe(400);
  });

  it("are served only if the origin is known", () => {
    expect(Object.keys(metadataRoutes(ISSUER))).toEqual([`GET ${PATH}`]);
    expect(metadataRoutes(undefined)).toEqual({});
  });
});

describe("JSON with OAuth's names", () => {
  const post = (body: object) => nobody.post("/token", body);

  it("gets tokens, with or without a client's credentials and the grant type", async () => {
    expectTokens(await post(ADMIN_GRANT));
    expectTokens(await post({ ...ADMIN_GRANT, client_id: "web", client_secret: "none", scope: "all" }));
    expectTokens(await post({ username: ADMIN.email, password: ADMIN.password }));
  });

  it("is refused if it names the user twice", async () => {
    const { status, body } = await post({ ...ADMIN_GRANT, email: ADMIN.email });
    expect([status, body["detail"]]).toEqual([422, "username is not a known field"]);
  });
});
