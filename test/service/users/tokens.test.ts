import { createHash, createHmac, createPublicKey, generateKeyPairSync, randomUUID, sign, type KeyObject } from "node:crypto";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import type { Middleware } from "moleculer";
import jwt from "jsonwebtoken";
import { Client as Postgres } from "pg";
import { call } from "../../../broker/contract";
import { token as logIn } from "../../../contracts/users";
import type { ApiResponse, Client } from "../../../testkit/client";
import { misspelled, testId, UUID_V7 } from "../../../testkit/ids";
import { ADMIN } from "../../../testkit/admin";
import { startShop, type Shop } from "../../../testkit/shop";

/** Two users nodes start together on an empty database; the gateway is a third node. */
let shop: Shop;
let nobody: Client;
let me: Client;
let myId: string;
let key: { kid: string; private_key: string };
let lookups = 0;

const counting: Middleware = {
  name: "Counting",
  localAction: (next, action) =>
    function (ctx) {
      if (action.name === "users.jwks") lookups++;
      return next.call(this, ctx) as unknown;
    },
};

async function inUsers<T extends object>(sql: string): Promise<T[]> {
  const database = new Postgres(shop.databases.users.url);
  await database.connect();
  return (await database.query<T>(sql).finally(() => database.end())).rows;
}

beforeAll(async () => {
  shop = await startShop({ nodes: [["api"], ["users"], ["users"]], broker: { middlewares: [counting] } });
  nobody = shop.client();
  me = shop.client();
  myId = await me.signUp();
  key = (await inUsers<typeof key>("select kid, private_key from signing_keys"))[0]!;
});
afterAll(() => shop.stop());

const expectUnauthenticated = ({ status, headers, body }: ApiResponse): void => {
  expect({ status, code: body["code"] }).toEqual({ status: 401, code: "UNAUTHENTICATED" });
  expect(headers.get("www-authenticate")).toMatch(/^Bearer/);
};

it("a request without a token is not told that its token is invalid (RFC 6750, 3.1)", async () => {
  const challenge = async (token?: string) =>
    (await shop.client().get("/me", token === undefined ? {} : { token })).headers.get("www-authenticate");
  expect([await challenge(), await challenge("x")]).toEqual(['Bearer realm="shop"', 'Bearer realm="shop", error="invalid_token"']);
});

it("tokens with unknown key ids → 401, and one look-up for all of them", async () => {
  const forged = Array.from({ length: 50 }, (_, i) => forge({ header: { kid: `made-up-${i}` } }));
  (await Promise.all(forged.map((token) => nobody.get("/me", { token })))).forEach(expectUnauthenticated);
  expect(lookups).toBe(1); // the first look-up of this gateway
  (await Promise.all(forged.map((token) => nobody.get("/me", { token })))).forEach(expectUnauthenticated);
  expect((await me.get("/me")).status).toBe(200);
  expect(lookups).toBe(1);
});

const encode = (part: unknown): string => Buffer.from(typeof part === "string" ? part : JSON.stringify(part)).toString("base64url");
const now = (): number => Math.floor(Date.now() / 1000);
const rs256 = (with_: string | KeyObject) => (input: string) => sign("sha256", Buffer.from(input), with_);
const hs256 = (secret: string | Buffer) => (input: string) => createHmac("sha256", secret).update(input).digest();
const spki = (): KeyObject => createPublicKey(key.private_key);
const attacker = generateKeyPairSync("rsa", { modulusLength: 2048 });
const attackersJwk = { ...attacker.publicKey.export({ format: "jwk" }), alg: "RS256", use: "sig", kid: "attacker" };

interface Forgery {
  header?: object;
  claims?: object | string;
  signed?: (input: string) => Buffer;
}

/** A token like those of users, except for the given parts. */
function forge({ header = {}, claims = {}, signed = rs256(key.private_key) }: Forgery = {}): string {
  const base = {
    role: "user",
    iss: "moleculer-shop/users",
    aud: "moleculer-shop",
    sub: myId,
    sid: randomUUID(),
    jti: randomUUID(),
  };
  const payload = typeof claims === "string" ? claims : { ...base, iat: now(), exp: now() + 900, ...claims };
  const input = `${encode({ alg: "RS256", typ: "JWT", kid: key.kid, ...header })}.${encode(payload)}`;
  return `${input}.${signed(input).toString("base64url")}`;
}

it("a token built by the test with our own key and valid claims → 200", async () => {
  expect((await nobody.get("/me", { token: forge() })).body["id"]).toBe(myId);
});

const unsigned = () => Buffer.alloc(0);
const WRONG: Readonly<Record<string, readonly unknown[]>> = {
  aud: ["another", "", undefined, null, "moleculer-shop/users", ["another"]],
  iss: ["another", "", undefined, null, "moleculer-shop"],
  sub: [undefined, null, 1, "1 or 1=1", "system", ...misspelled(testId(1))],
  role: [undefined, null, "", "root", "Admin", ["admin"]],
  exp: [undefined, null, "", "9999999999", 1.5, -1, 0],
  nbf: ["0", null],
  jti: [undefined, null, "", 1],
  sid: [undefined, null, "", 1, "a session"],
};
/** Forms of a public key that a library might use as an HMAC secret. */
const SECRETS: Readonly<Record<string, () => string | Buffer>> = {
  "the public key as PEM": () => spki().export({ type: "spki", format: "pem" }),
  "the public key as PKCS 1": () => spki().export({ type: "pkcs1", format: "pem" }),
  "the public key as DER": () => spki().export({ type: "spki", format: "der" }),
  "the modulus": () => Buffer.from(spki().export({ format: "jwk" }).n!, "base64url"),
  nothing: () => "",
};
const pss = (input: string) => sign("sha256", Buffer.from(input), { key: key.private_key, padding: 6, saltLength: 32 });
const ATTACKS: Readonly<Record<string, () => Forgery>> = {
  "exp 31 s ago": () => ({ claims: { exp: now() - 31 } }),
  "nbf 31 s ahead": () => ({ claims: { nbf: now() + 31 } }),
  "no signature": () => ({ signed: unsigned }),
  "RS512 by the right key": () => ({ header: { alg: "RS512" }, signed: (input) => sign("sha512", Buffer.from(input), key.private_key) }),
  "PS256 by the right key": () => ({ header: { alg: "PS256" }, signed: pss }),
  "the right key id, signed by another key": () => ({ signed: rs256(attacker.privateKey) }),
  "claims that are no JSON, unsigned": () => ({ claims: "not JSON", signed: unsigned }),
};
const each = (what: string, values: readonly unknown[], forgery: (value: unknown) => Forgery) =>
  values.map((value) => [`${what} ${JSON.stringify(value)}`, () => forgery(value)] as const);

it.each([
  ...each("an unsigned alg", ["none", "None", "nOnE", "NONE", ""], (alg) => ({ header: { alg }, signed: unsigned })),
  ...each("a signed alg", ["none", "None", "nOnE", "NONE", ""], (alg) => ({ header: { alg } })),
  ...each("HS256 by", Object.keys(SECRETS), (name) => ({
    header: { alg: "HS256" },
    signed: (input) => hs256(SECRETS[String(name)]!())(input),
  })),
  ...each("the key id", [undefined, 7, {}, [], null, "", "__proto__", "../../etc/passwd", "' or 1=1 --"], (kid) => ({ header: { kid } })),
  ...Object.entries(WRONG).flatMap(([name, values]) => each(name, values, (value) => ({ claims: { [name]: value } }))),
  ...each("claims", ["null", "[]", "7", '"x"', "not JSON", ""], (claims) => ({ claims: String(claims) })),
  ...Object.entries(ATTACKS),
])("a token with %s → 401", async (_what, forgery) => {
  expectUnauthenticated(await nobody.get("/me", { token: forge(forgery()) }));
});

it("a token that was changed in any part → 401", async () => {
  const [header, payload, signed] = forge().split(".") as [string, string, string];
  const admin = encode({ ...(jwt.decode(`${header}.${payload}.${signed}`) as object), role: "admin" });
  const flipped = (signed.startsWith("A") ? "B" : "A") + signed.slice(1);
  const parts = [
    [header, admin, signed],
    [header, payload, flipped],
    [header, payload, signed.slice(0, -4)],
    [header, payload],
    [header, payload, signed, signed],
    ["", payload, signed],
    [header, "", signed],
    ["", "", ""],
    ["a", "b", "c"],
    [randomUUID()],
  ];
  for (const token of parts.map((part) => part.join("."))) expectUnauthenticated(await nobody.get("/me", { token }));
});

it("a header that contains the key or its address → 401, and the address is not requested", async () => {
  const certificate = attacker.publicKey.export({ type: "spki", format: "der" }).toString("base64");
  let asked = 0;
  const server = createServer((_req, res) => {
    asked++;
    res.setHeader("Content-Type", "application/json").end(JSON.stringify({ keys: [attackersJwk] }));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/keys`;
  try {
    for (const hint of [{ jku: url }, { x5u: url }, { jwk: attackersJwk }, { x5c: [certificate] }]) {
      for (const kid of [key.kid, "attacker", url]) {
        const forgery = { header: { kid, ...hint }, signed: rs256(attacker.privateKey) };
        expectUnauthenticated(await nobody.get("/me", { token: forge(forgery) }));
      }
    }
    expect(asked).toBe(0);
  } finally {
    server.close();
  }
});

it.each([[["exp"]], [["b64"]], [[]], ["exp"]])(
  "a token of ours whose header has %j as crit is refused (RFC 7515, 4.1.11)",
  async (crit) => {
    const header = { kid: key.kid, crit, ...(Array.isArray(crit) && crit[0] === "b64" && { b64: false }) };
    expectUnauthenticated(await nobody.get("/me", { token: forge({ header }) }));
  },
);

const authorized = (form: string): Promise<ApiResponse> =>
  nobody.get("/me", { headers: { Authorization: form.replaceAll(":token", me.token!) } });

it.each(["Bearer :token", "bearer :token", "BEARER   :token  "])("Authorization: %s → 200", async (form) => {
  expect((await authorized(form)).status).toBe(200);
});

const NO_BEARERS =
  '|Bearer|Bearer |:token|Bearer:token|Token :token|Basic :token|Bearer :token x|Bearer :token, Bearer :token|Bearer ":token"';
it.each(NO_BEARERS.split("|"))("Authorization: %s → 401", async (form) => {
  expectUnauthenticated(await authorized(form));
});

it("a token outside the header is ignored, in the query or in a cookie; and an invalid one does not block a public route", async () => {
  expectUnauthenticated(await nobody.get(`/me?access_token=${me.token!}`));
  expectUnauthenticated(await nobody.get("/me", { headers: { Cookie: `access_token=${me.token!}` } }));
  expect((await nobody.get("/.well-known/jwks.json", { token: "bad" })).status).toBe(200);
});

it("nodes that start at once create one key and one admin, and sign with the same key", async () => {
  expect(await inUsers("select kid from signing_keys")).toEqual([{ kid: key.kid }]);
  expect(await inUsers("select email from users where role = 'admin'")).toEqual([{ email: ADMIN.email }]);
  for (const node of shop.nodes.slice(1)) {
    const { access_token } = await call(node, logIn, ADMIN); // preferLocal: this node handles it
    expect(jwt.decode(access_token, { complete: true })?.header.kid).toBe(key.kid);
    expect((await nobody.get("/me", { token: access_token })).body).toMatchObject({ email: ADMIN.email, role: "admin" });
  }
});

it("the public keys are published as in RFC 7517, may be cached, and verify a token; they contain nothing private", async () => {
  const { status, headers, body } = await nobody.get("/.well-known/jwks.json");
  expect(status).toBe(200);
  expect(headers.get("cache-control")).toMatch(/^public, max-age=[1-9]\d*$/);
  const { n, e } = spki().export({ format: "jwk" });
  expect(body).toEqual({ keys: [{ kty: "RSA", use: "sig", alg: "RS256", kid: key.kid, n, e }] });
  expect(Buffer.from(n!, "base64url").length * 8).toBeGreaterThanOrEqual(2048);
  expect(
    createHash("sha256")
      .update(JSON.stringify({ e, kty: "RSA", n }))
      .digest("base64url"),
  ).toBe(key.kid); // RFC 7638
  const verified = jwt.verify(me.token!, createPublicKey({ key: body["keys"][0], format: "jwk" }));
  expect(verified).toMatchObject({ iss: "moleculer-shop/users", aud: "moleculer-shop", sub: myId, role: "user" });
});

const GOOD_EMAILS = ["a@b.co", "x+tag.y_z@sub.shop.test", "Ünï@bücher.example", "用户@例え.jp", `${"a".repeat(64)}@b.co`];
const BAD_EMAILS = "|a|@b.co|a@|a@b|a b@c.de|a@b c.de|a@@b.co|a@b..co|a@-b.co|a@.co|<a@b.co>|a\n@b.co|a@b.co,c@d.co|a\0@b.co|a@b.co\0";
const PASSWORDS: [what: string, status: number, password: unknown][] = [
  ["7 characters", 422, "1234567"],
  ["8 characters", 201, "12345678"],
  ["8 spaces", 201, "        "],
  ["7 characters of 4 bytes", 422, "😀".repeat(7)],
  ["8 characters of 4 bytes", 201, "😀".repeat(8)],
  ["72 bytes", 201, "x".repeat(72)],
  ["73 bytes", 422, "x".repeat(73)],
  ["72 bytes of 18 characters", 201, "😀".repeat(18)],
  ["73 bytes of 19 characters", 422, `${"😀".repeat(18)}x`],
  ["90,000 bytes", 422, "x".repeat(90_000)],
  ["a NUL", 422, "1234\0abcd"],
  ["a number", 422, 12345678],
  ["null", 422, null],
];

describe("registration", () => {
  const register = (email: unknown, password: unknown = "long enough"): Promise<ApiResponse> =>
    nobody.post("/register", { email, password });
  const unique = (): string => `${randomUUID()}@shop.test`;

  it.each(GOOD_EMAILS)("the e-mail %s → 201, returned as given", async (email) => {
    const { status, headers, body } = await register(email);
    expect([status, headers.get("location"), headers.get("cache-control")]).toEqual([201, "/me", "no-store"]);
    expect(body).toEqual({ id: expect.stringMatching(UUID_V7), email, role: "user", created_at: expect.stringMatching(/^\d{4}-.*Z$/) });
  });

  it.each(BAD_EMAILS.split("|"))("the e-mail %j → 422", async (email) => {
    const { status, body } = await register(email);
    expect([status, body["errors"]]).toEqual([422, [{ field: "email", message: expect.any(String) }]]);
  });

  it("an e-mail of 254 characters → 201, of 255 → 422", async () => {
    const email = `${"a".repeat(64)}@${`${"b".repeat(61)}.`.repeat(3)}ccc`;
    expect([email.length, (await register(email)).status, (await register(`${email}c`)).status]).toEqual([254, 201, 422]);
  });

  it.each(PASSWORDS)("a password of %s → %i", async (_what, status, password) => {
    const email = unique();
    const response = await register(email, password);
    expect(response.status).toBe(status);
    if (status === 422) expect(response.body["errors"]).toMatchObject([{ field: "password" }]);
    else expect((await nobody.post("/token", { email, password })).status).toBe(200);
  });

  it("a password counts to its last byte and exactly as typed", async () => {
    const email = unique();
    await register(email, `${"x".repeat(71)}y`);
    for (const password of ["x".repeat(72), "x".repeat(71), `${"X".repeat(71)}y`])
      expect((await nobody.post("/token", { email, password })).status).toBe(401);
  });

  it.each([
    ["other case", "Maria@Shop.test", "mARIA@shop.TEST"],
    ["full-width letters", "fw@shop.test", "ｆｗ@shop.test"],
    ["a ligature", "ﬁnn@shop.test", "FINN@shop.test"],
    ["a composed letter", "jose\u0301@shop.test", "josé@shop.test"],
    ["the Kelvin sign", "\u212Aelvin@shop.test", "kelvin@shop.test"],
  ])("%s: one account, and either form logs in", async (_what, first, second) => {
    expect((await register(first)).status).toBe(201);
    const again = await register(second, "another password");
    expect([again.status, again.body["code"]]).toEqual([409, "EMAIL_TAKEN"]);
    for (const email of [first, second])
      expect((await (await shop.client().login(email, "long enough")).get("/me")).body["email"]).toBe(first.normalize("NFC"));
  });

  it("ten registrations of one e-mail at once with ten passwords: one → 201, the others → 409", async () => {
    const email = unique();
    const all = Array.from({ length: 10 }, (_, i) => register(email, `long enough ${i}`));
    const statuses = (await Promise.all(all)).map(({ status }) => status);
    expect(statuses.sort()).toEqual([201, ...Array<number>(9).fill(409)]);
  });

  it("ten of one e-mail and password at once → 201 with one account", async () => {
    const email = unique();
    const responses = await Promise.all(Array.from({ length: 10 }, () => register(email)));
    expect([...new Set(responses.map(({ status }) => status))]).toEqual([201]);
    expect(new Set(responses.map(({ body }) => String(body["id"]))).size).toBe(1);
  });

  describe("retried, as after a lost response,", () => {
    it("with the same password → 201 with the same account", async () => {
      const email = unique();
      const first = await register(email);
      const again = await register(email.toUpperCase());
      expect([again.status, again.headers.get("location"), again.body]).toEqual([201, "/me", first.body]);
    });

    it("with another password → 409, and the password stays the first one", async () => {
      const email = unique();
      await register(email);
      const again = await register(email, "another password");
      expect([again.status, again.body["code"]]).toEqual([409, "EMAIL_TAKEN"]);
      expect((await nobody.post("/token", { email, password: "another password" })).status).toBe(401);
    });

    it("after the first login → 409", async () => {
      const email = unique();
      await register(email);
      await shop.client().login(email, "long enough");
      expect((await register(email)).body["code"]).toBe("EMAIL_TAKEN");
    });

    it("after 15 minutes → 409", async () => {
      const email = unique();
      await register(email);
      await inUsers(`update users set created_at = now() - interval '14 minutes' where email = '${email}'`);
      expect((await register(email)).status).toBe(201);
      await inUsers(`update users set created_at = now() - interval '15 minutes' where email = '${email}'`);
      expect((await register(email)).body["code"]).toBe("EMAIL_TAKEN");
    });
  });
});

describe("login", () => {
  it.each([
    ["JSON", ADMIN],
    ["JSON with the names of OAuth 2", { grant_type: "password", username: ADMIN.email, password: ADMIN.password }],
  ])("by %s → a token for 15 minutes that must not be cached", async (_what, credentials) => {
    const { status, headers, body } = await nobody.post("/token", credentials);
    expect([status, headers.get("cache-control")]).toEqual([200, "no-store"]);
    expect(body).toMatchObject({ token_type: "bearer", expires_in: 900 });
    const { exp, iat } = jwt.decode(String(body["access_token"])) as { exp: number; iat: number };
    expect([exp - iat, Math.abs(iat - now()) < 5]).toEqual([900, true]);
    expect((await nobody.get("/me", { token: String(body["access_token"]) })).body["role"]).toBe("admin");
  });

  it("each token has its own id", async () => {
    const tokens = await Promise.all([1, 2, 3].map(() => call(shop.node("users"), logIn, ADMIN)));
    expect(new Set(tokens.map(({ access_token }) => (jwt.decode(access_token) as { jti: string }).jti)).size).toBe(3);
  });

  it("a wrong password and an unknown e-mail get the same response, byte for byte", async () => {
    const ask = async (email: string) => {
      const headers = { "Content-Type": "application/json", "X-Request-Id": "same" };
      const response = await fetch(`${shop.url}/token`, {
        method: "POST",
        headers,
        body: JSON.stringify({ email, password: "wrong one" }),
      });
      return [response.status, [...response.headers].filter(([name]) => name !== "date"), await response.text()];
    };
    const unknown = await ask("nobody@shop.test");
    expect(await ask(ADMIN.email)).toEqual(unknown);
    expect(unknown[0]).toBe(401);
  });

  it("two users with the same password have different hashes, and neither is the password", async () => {
    const rows = await inUsers<{ password_hash: string }>("select password_hash from users");
    expect(new Set(rows.map((row) => row.password_hash)).size).toBe(rows.length);
    for (const { password_hash } of rows) expect(password_hash).toMatch(/^\$2[aby]\$04\$/);
  });
});
