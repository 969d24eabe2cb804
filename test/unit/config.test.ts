import path from "node:path";
import { inspect } from "node:util";
import fc from "fast-check";
import { ConfigError, loadConfig, SERVICES } from "../../config";

type Env = Readonly<Record<string, string>>;

/** The errors reported for an environment; none if it is accepted. */
function mistakes(env: Env): readonly string[] {
  try {
    loadConfig(env);
    return [];
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    for (const mistake of error.mistakes) expect(error.message).toContain(`\n  - ${mistake}`);
    return error.mistakes;
  }
}

const DATABASES = {
  USERS_DATABASE_URL: "postgres://u:a-secret@db:5432/user_db",
  PRODUCTS_DATABASE_URL: "postgres://p:b-secret@db:5432/product_db",
  ORDERS_DATABASE_URL: "postgresql://o:c-secret@db:5432/order_db",
};
const TRANSPORTER = { TRANSPORTER: "amqp://shop:d-secret@mq:5672" };
const [KEY = "", OTHER_KEY = ""] = [1, 2].map((byte) => Buffer.alloc(32, byte).toString("base64"));
const PRODUCTION = { NODE_ENV: "production", ...DATABASES, ...TRANSPORTER, KEY_ENCRYPTION_KEY: KEY };

it("an empty environment configures a whole shop on this machine, with the documented defaults", () => {
  expect(loadConfig({})).toEqual({
    production: false,
    hostsAll: true,
    services: ["api", "users", "products", "orders"],
    port: 8000,
    host: "127.0.0.1",
    publicUrl: "http://localhost:8000",
    basePath: "",
    transporter: undefined,
    databases: { users: undefined, products: undefined, orders: undefined },
    dataDir: path.resolve(".data"),
    namespace: "shop",
    nodeId: expect.stringMatching(/^shop-[0-9a-f]{8}$/),
    log: { level: "info", format: "short" },
    accessTokenTtlSeconds: 900,
    refreshTokenTtlSeconds: 2_592_000,
    refreshGraceSeconds: 10,
    bcryptCost: 12,
    admin: undefined,
    keyEncryption: { key: undefined, older: undefined },
    corsOrigins: [],
    keepAliveSeconds: 75,
    drainDelaySeconds: 0,
    rateLimit: { auth: 10, account: 100, address: 100, register: 20, password: 10, requests: 0 },
    trustProxy: [],
    ops: { port: undefined, host: "127.0.0.1" },
    outbox: { retryMs: 5_000, retryMaxMs: 60_000 },
  });
});

const EVERYTHING = {
  ...DATABASES,
  ...TRANSPORTER,
  SERVICES: "orders, api,orders",
  PORT: " 0 ",
  HOST: "::",
  PUBLIC_URL: "https://shop.example.com",
  BASE_PATH: "/shop",
  DATA_DIR: "/var/shop",
  NAMESPACE: "a_B-1",
  NODE_ID: "n.1+x",
  LOG_LEVEL: "trace",
  LOG_FORMAT: "json",
  ACCESS_TOKEN_TTL: "1",
  REFRESH_TOKEN_TTL: "2",
  REFRESH_GRACE: "0",
  BCRYPT_COST: "4",
  ADMIN_EMAIL: "a@b.co",
  ADMIN_PASSWORD: "long enough",
  KEY_ENCRYPTION_KEY: KEY,
  KEY_ENCRYPTION_KEY_OLD: ` ${OTHER_KEY} `,
  CORS_ORIGINS: "https://a.example, http://b.example:81",
  KEEP_ALIVE_TIMEOUT: "7",
  DRAIN_DELAY: "9",
  RATE_LIMIT_AUTH: "0",
  RATE_LIMIT_ACCOUNT: "3",
  RATE_LIMIT_ADDRESS: "5",
  RATE_LIMIT_REGISTER: "7",
  RATE_LIMIT_PASSWORD: "8",
  RATE_LIMIT: "6",
  TRUST_PROXY: "10.0.0.1, 10.1.0.0/16, loopback",
  OPS_PORT: "0",
  OPS_HOST: "0.0.0.0",
  OUTBOX_RETRY_MS: "10",
  OUTBOX_RETRY_MAX_MS: "10",
};

it("every variable sets its option, with surrounding spaces removed", () => {
  const config = loadConfig(EVERYTHING);
  const { key, older } = config.keyEncryption;
  expect([key, older].map((secret) => secret?.export().toString("base64"))).toEqual([KEY, OTHER_KEY]);
  expect(config).toEqual({
    production: false,
    hostsAll: false,
    services: ["orders", "api"],
    port: 0,
    host: "::",
    publicUrl: "https://shop.example.com",
    basePath: "/shop",
    transporter: [TRANSPORTER.TRANSPORTER],
    databases: { users: DATABASES.USERS_DATABASE_URL, products: DATABASES.PRODUCTS_DATABASE_URL, orders: DATABASES.ORDERS_DATABASE_URL },
    dataDir: "/var/shop",
    namespace: "a_B-1",
    nodeId: "n.1+x",
    log: { level: "trace", format: "json" },
    accessTokenTtlSeconds: 1,
    refreshTokenTtlSeconds: 2,
    refreshGraceSeconds: 0,
    bcryptCost: 4,
    admin: { email: "a@b.co", password: "long enough" },
    keyEncryption: { key, older },
    corsOrigins: ["https://a.example", "http://b.example:81"],
    keepAliveSeconds: 7,
    drainDelaySeconds: 9,
    rateLimit: { auth: 0, account: 3, address: 5, register: 7, password: 8, requests: 6 },
    trustProxy: ["10.0.0.1", "10.1.0.0/16", "loopback"],
    ops: { port: 0, host: "0.0.0.0" },
    outbox: { retryMs: 10, retryMaxMs: 10 },
  });
});

it("an empty or blank variable counts as unset", () => {
  const names = [
    "PORT",
    "TRANSPORTER",
    "SERVICES",
    "ADMIN_EMAIL",
    "ADMIN_PASSWORD",
    "CORS_ORIGINS",
    "LOG_LEVEL",
    "OPS_PORT",
    "NODE_ID",
    "HOST",
  ];
  const { nodeId, ...blank } = loadConfig(Object.fromEntries(names.map((name, i) => [name, i % 2 === 0 ? "" : "  "])));
  expect(nodeId).toMatch(/^shop-/);
  expect(loadConfig({})).toMatchObject(blank);
});

it("a node is named after the services that it hosts, with a unique suffix", () => {
  const env = { ...TRANSPORTER, SERVICES: "api" };
  const [a, b] = [loadConfig(env).nodeId, loadConfig(env).nodeId];
  expect([/^api-[0-9a-f]{8}$/.test(a), a === b]).toEqual([true, false]);
  expect(loadConfig({ ...TRANSPORTER, ...DATABASES, SERVICES: "users,orders" }).nodeId).toMatch(/^users\+orders-/);
});

const INTEGERS: [name: string, min: number, max: number][] = [
  ["PORT", 0, 65_535],
  ["OPS_PORT", 0, 65_535],
  ["ACCESS_TOKEN_TTL", 1, 86_400],
  ["REFRESH_TOKEN_TTL", 1, 31_536_000],
  ["REFRESH_GRACE", 0, 60],
  ["BCRYPT_COST", 4, 16],
  ["RATE_LIMIT_AUTH", 0, 1_000_000],
  ["RATE_LIMIT_ACCOUNT", 0, 1_000_000],
  ["RATE_LIMIT_ADDRESS", 0, 1_000_000],
  ["RATE_LIMIT_REGISTER", 0, 1_000_000],
  ["RATE_LIMIT_PASSWORD", 0, 1_000_000],
  ["RATE_LIMIT", 0, 1_000_000],
  ["OUTBOX_RETRY_MS", 10, 3_600_000],
  ["OUTBOX_RETRY_MAX_MS", 10, 3_600_000],
];

it.each(INTEGERS)("%s is a whole number from %i to %i, in plain digits", (name, min, max) => {
  const roomy = { OUTBOX_RETRY_MS: "10", OUTBOX_RETRY_MAX_MS: "3600000", ...(name === "REFRESH_TOKEN_TTL" && { ACCESS_TOKEN_TTL: "1" }) };
  for (const value of [min, max]) expect(mistakes({ ...roomy, [name]: String(value) })).toEqual([]);
  for (const value of [String(min - 1), String(max + 1), "1e1", "0x10", "1.5", "+1", "12px", "x", "Infinity", "١"])
    expect(mistakes({ ...roomy, [name]: value })).toEqual([`${name} is "${value}": set a whole number from ${min} to ${max}`]);
});

it.each<[string, string, reason: string]>([
  ["NODE_ENV", "prod", "development, test, production"],
  ["LOG_LEVEL", "verbose", "fatal, error, warn, info, debug, trace"],
  ["LOG_FORMAT", "JSON", "short, json"],
  ["SERVICES", "api,payments", "api, users, products, orders"],
  ["NAMESPACE", "a b", "letters"],
  ["NAMESPACE", "x".repeat(65), "letters"],
  ["NODE_ID", "a/b", "letters"],
  ["NODE_ID", "x".repeat(129), "letters"],
  ["TRANSPORTER", "nats://a", "amqp://user:password@host:port"],
  ["TRANSPORTER", "mq:5672", "amqp://"],
  ["TRANSPORTER", "amqp://", "amqp://"],
  ["TRANSPORTER", "amqp://u:p@mq\n#2", "line ending"],
  ["USERS_DATABASE_URL", "mysql://a/b", "postgres://user:password@host:port"],
  ["PRODUCTS_DATABASE_URL", "not a url", "postgres://"],
  ["ORDERS_DATABASE_URL", "postgres:///order_db", "postgres://"],
  ["ORDERS_DATABASE_URL", "postgres://a:1,/order_db", "host:port,host:port"],
  ["ORDERS_DATABASE_URL", "postgres://a,b:x/order_db", "host:port,host:port"],
  ["ORDERS_DATABASE_URL", `postgres://${"a,".repeat(16)}a/order_db`, "host:port,host:port"],
  ["ORDERS_DATABASE_URL", "postgres://a,b/order_db?target_session_attrs=any", "read-write"],
  ["PUBLIC_URL", "shop.example.com", "https://shop.example.com, without a path"],
  ["PUBLIC_URL", "https://shop.example.com/", "without a path"],
  ["PUBLIC_URL", "https://shop.example.com/api", "without a path"],
  ["PUBLIC_URL", "https://shop.example.com?x=1", "without a path"],
  ["PUBLIC_URL", "https://*.example.com", "without a path"],
  ["PUBLIC_URL", "ftp://shop.example.com", "without a path"],
  ["PUBLIC_URL", "https://a.example, https://b.example", "without a path"],
  ["CORS_ORIGINS", "*", "exact origins"],
  ["CORS_ORIGINS", "https://a.example/", "exact origins"],
  ["CORS_ORIGINS", "https://*.example", "exact origins"],
  ["CORS_ORIGINS", "a.example", "exact origins"],
  ["CORS_ORIGINS", "null", "exact origins"],
  ["TRUST_PROXY", "my-proxy", "addresses"],
  ["TRUST_PROXY", "10.0.0.0/99", "addresses"],
  ["TRUST_PROXY", "1", "addresses"],
  ["TRUST_PROXY", "10.0.0.1, 0x1/8", "addresses"],
  ["CORS_ORIGINS", "capacitor://localhost/app", "exact origins"],
  ["CORS_ORIGINS", "capacitor://*", "exact origins"],
  ["TRANSPORTER", "amqps://u:p@mq?cacertfile=/ca.pem", "NODE_EXTRA_CA_CERTS"],
  ["ADMIN_EMAIL", "a@b.co", "both or neither"],
  ["ADMIN_PASSWORD", "long enough", "both or neither"],
])("%s=%s is refused, and the error names what to set: %s", (name, value, reason) => {
  expect(mistakes({ ...TRANSPORTER, ...DATABASES, [name]: value })).toEqual([
    expect.stringMatching(new RegExp(`^${name === "ADMIN_PASSWORD" ? "ADMIN_EMAIL" : name}\\b`)),
  ]);
  expect(mistakes({ ...TRANSPORTER, ...DATABASES, [name]: value })[0]).toContain(reason);
});

it.each([
  "amqp://mq",
  "amqp://mq:5672",
  "amqp://mq/",
  "amqps://mq/vhost",
  "amqp://u:p%40%25@mq",
  "amqp://u:p%2C@mq",
  "amqp://mq?heartbeat=30",
])("TRANSPORTER may be %s", (url) => {
  expect(loadConfig({ TRANSPORTER: url }).transporter).toEqual([url]);
});

describe("TRANSPORTER with several URLs", () => {
  const many = (count: number): string[] => Array.from({ length: count }, (_, n) => `amqp://u:p@mq${n}`);

  it("has the addresses of several brokers, in their order and without the spaces around them", () => {
    expect(loadConfig({ TRANSPORTER: " amqp://u:p@a:5672 ,amqps://u:p@b/v," }).transporter).toEqual([
      "amqp://u:p@a:5672",
      "amqps://u:p@b/v",
    ]);
    expect(loadConfig({ TRANSPORTER: many(16).join() }).transporter).toEqual(many(16));
  });

  it.each<[value: string, reason: string]>([
    [",", "TRANSPORTER is not a URL of the form amqp://user:password@host:port/…"],
    [
      "amqp://a,http://b,amqp://c,d",
      "has 4 URLs, and these are not of the form amqp://user:password@host:port/… (a comma in a password is %2C): 2, 4",
    ],
    ["amqp://u:p,q@a", "has 2 URLs, and these are not of the form amqp://user:password@host:port/… (a comma in a password is %2C): 1, 2"],
    ["amqp://a;amqp://b", "TRANSPORTER is not a URL of the form"],
    ["amqp://a,amqp://b\nc", "contains a line ending"],
    [many(17).join(), "TRANSPORTER has 17 URLs: set 16 at most"],
  ])("is refused if it is %s", (value, reason) => {
    expect(mistakes({ TRANSPORTER: value })).toEqual([expect.stringContaining(reason)]);
  });
});

it.each(["postgres://db/x", "postgres://u@db/x", "postgresql://u:p%2F@db:5433/x?sslmode=verify-full", "postgres://u:p@a:1,b/x"])(
  "a database may be at %s",
  (url) => {
    expect(loadConfig({ USERS_DATABASE_URL: url }).databases.users).toBe(url);
  },
);

it.each(["postgres://a%:41x@db/x", "postgres://a:b%@db/41", "postgres://a:b@db/%zz"])("a database may not be at %s", (url) => {
  expect(mistakes({ USERS_DATABASE_URL: url })).toHaveLength(1); // an invalid escape in one part of the URL
});

it.each(["/shop", "/a/b.c/d_e/f-g/~h", "/.well-known", "/a..b", "/1"])("BASE_PATH may be %s", (value) => {
  expect(loadConfig({ BASE_PATH: value }).basePath).toBe(value);
});

it.each(["/", "shop", "/shop/", "//shop", "/a//b", "/a b", "/ä", "/%73", "/a?b", "/a#b", "/./a", "/a/..", "http://a/b", "/<b>"])(
  "BASE_PATH can't be %s, and one sentence says what it can be",
  (value) => {
    const form = "a path such as /shop, with a slash at its start and none at its end, of letters, digits, - . _ and ~";
    expect(mistakes({ BASE_PATH: value })).toEqual([`BASE_PATH is "${value}": set ${form}`]);
  },
);

it.each<[email: string, password: string, reason: string]>([
  ["nobody", "long enough", "ADMIN_EMAIL"],
  ["a b@c.de", "long enough", "ADMIN_EMAIL"],
  ["a@b.co", "1234567", "ADMIN_PASSWORD"],
  ["a@b.co", "😀".repeat(7), "ADMIN_PASSWORD"],
  ["a@b.co", "x".repeat(73), "ADMIN_PASSWORD"],
  ["a@b.co", "😀".repeat(19), "ADMIN_PASSWORD"],
])("an admin %s with the password %s is refused because of %s, as in a registration", (email, password, reason) => {
  expect(mistakes({ ADMIN_EMAIL: email, ADMIN_PASSWORD: password })).toEqual([expect.stringMatching(`^${reason} `)]);
});

it.each(["12345678", "x".repeat(72), "😀".repeat(8), "😀".repeat(18), " spaces around "])(
  "an admin may have the password %j",
  (password) => {
    expect(loadConfig({ ADMIN_EMAIL: "a@b.co", ADMIN_PASSWORD: password }).admin).toEqual({ email: "a@b.co", password });
  },
);

it.each([
  ["31 bytes", Buffer.alloc(31, 7).toString("base64")],
  ["33 bytes", Buffer.alloc(33, 7).toString("base64")],
  ["32 letters", "canary-5c1ecanary-5c1ecanary-5c1"],
  ["hexadecimal", Buffer.alloc(32, 7).toString("hex")],
  ["no padding", KEY.replace("=", "")],
  ["bits after the last byte", KEY.replace("E=", "F=")],
  ["a character that base64 lacks", KEY.replace("A", "-")],
])("a key of %s is refused, and the error doesn't contain it", (_what, value) => {
  for (const name of ["KEY_ENCRYPTION_KEY", "KEY_ENCRYPTION_KEY_OLD"]) {
    const reason = mistakes({ KEY_ENCRYPTION_KEY: KEY, [name]: value });
    expect(reason).toEqual([`${name} is not 32 bytes in base64: set what \`openssl rand -base64 32\` prints`]);
  }
});

it("the health of a node has a port of its own", () => {
  const refusal = [expect.stringMatching(/^OPS_PORT equals PORT/)];
  expect(mistakes({ PORT: "8000", OPS_PORT: "8000" })).toEqual(refusal);
  expect(mistakes({ PORT: "8000", OPS_PORT: "8000", HOST: "10.0.0.5", OPS_HOST: "0.0.0.0" })).toEqual(refusal);
  expect(mistakes({ PORT: "8000", OPS_PORT: "8000", HOST: "10.0.0.5" })).toEqual([]);
  expect(mistakes({ PORT: "0", OPS_PORT: "0" })).toEqual([]);
  expect(mistakes({ PORT: "8000", OPS_PORT: "8000", SERVICES: "orders", ...DATABASES, ...TRANSPORTER })).toEqual([]);
});

it.each(["https://shop.example.com", "http://localhost:5173", "capacitor://localhost", "tauri://localhost"])(
  "CORS_ORIGINS may be %s",
  (origin) => {
    expect(loadConfig({ CORS_ORIGINS: origin }).corsOrigins).toEqual([origin]);
  },
);

it("an older key requires a newer one", () => {
  const refusal = [expect.stringContaining("KEY_ENCRYPTION_KEY_OLD is set, but KEY_ENCRYPTION_KEY is missing or the same")];
  expect(mistakes({ KEY_ENCRYPTION_KEY_OLD: KEY })).toEqual(refusal);
  expect(mistakes({ KEY_ENCRYPTION_KEY: KEY, KEY_ENCRYPTION_KEY_OLD: KEY })).toEqual(refusal);
  expect(mistakes({ KEY_ENCRYPTION_KEY: KEY, KEY_ENCRYPTION_KEY_OLD: OTHER_KEY })).toEqual([]);
});

it("the configuration prints without the keys", () => {
  const config = loadConfig({ KEY_ENCRYPTION_KEY: KEY, KEY_ENCRYPTION_KEY_OLD: OTHER_KEY });
  for (const printed of [JSON.stringify(config), inspect(config, { depth: Infinity, showHidden: true })])
    for (const secret of [KEY, OTHER_KEY, "01 01 01", "1,1,1,1"]) expect(printed).not.toContain(secret);
});

it.each(Object.entries(EVERYTHING))("a line ending in %s is refused, with its name, and nothing else", (name, value) => {
  for (const ending of ["\n", "\r\n"])
    expect(mistakes({ ...EVERYTHING, [name]: value + ending })).toEqual([`${name} contains a line ending: remove it`]);
});

describe("a part of the shop", () => {
  it("requires a transporter and the databases of the services that it hosts, and no others", () => {
    expect(mistakes({ SERVICES: "orders,users", PRODUCTS_DATABASE_URL: DATABASES.PRODUCTS_DATABASE_URL })).toEqual([
      expect.stringContaining("set TRANSPORTER"),
      expect.stringContaining("USERS_DATABASE_URL is missing"),
      expect.stringContaining("ORDERS_DATABASE_URL is missing"),
    ]);
    expect(mistakes({ SERVICES: "api", ...TRANSPORTER })).toEqual([]);
    expect(mistakes({ SERVICES: "orders", ...TRANSPORTER, ORDERS_DATABASE_URL: DATABASES.ORDERS_DATABASE_URL })).toEqual([]);
  });

  it("that names every service is a whole shop", () => {
    expect(loadConfig({ SERVICES: SERVICES.join() })).toMatchObject({ hostsAll: true });
  });
});

it.each(["USERS_DATABASE_URL", "ORDERS_DATABASE_URL"])("%s must not be that of products", (name) => {
  expect(mistakes({ ...DATABASES, [name]: DATABASES.PRODUCTS_DATABASE_URL })).toEqual([expect.stringContaining("share one database")]);
});

it("without PUBLIC_URL the gateway is on this machine, and in production its origin is unknown", () => {
  expect(loadConfig({ PORT: "81" }).publicUrl).toBe("http://localhost:81");
  expect(loadConfig(PRODUCTION).publicUrl).toBeUndefined();
});

it("the relay's maximum back-off must not be below its first", () => {
  expect(mistakes({ OUTBOX_RETRY_MS: "100", OUTBOX_RETRY_MAX_MS: "99" })).toEqual([expect.stringContaining("must not be below")]);
  expect(mistakes({ OUTBOX_RETRY_MS: "60001" })).toHaveLength(1);
});

it("a session must not expire before its access token", () => {
  const refusal = [expect.stringContaining("REFRESH_TOKEN_TTL must not be below ACCESS_TOKEN_TTL")];
  expect(mistakes({ ACCESS_TOKEN_TTL: "900", REFRESH_TOKEN_TTL: "899" })).toEqual(refusal);
  expect(mistakes({ REFRESH_TOKEN_TTL: "899" })).toEqual(refusal);
  expect(mistakes({ ACCESS_TOKEN_TTL: "900", REFRESH_TOKEN_TTL: "900" })).toEqual([]);
});

it("all errors are reported at once, one per line", () => {
  const env = {
    NODE_ENV: "prod",
    PORT: "x",
    SERVICES: "pay",
    TRANSPORTER: "x",
    USERS_DATABASE_URL: "x",
    NAMESPACE: "!",
    NODE_ID: "!",
    LOG_LEVEL: "x",
    LOG_FORMAT: "x",
    BCRYPT_COST: "99",
    ADMIN_EMAIL: "x",
    CORS_ORIGINS: "*,x",
    OUTBOX_RETRY_MS: "0",
    OPS_PORT: "-1",
  };
  expect(mistakes(env)).toHaveLength(15);
  expect(() => loadConfig(env)).toThrow("The configuration has 15 mistakes:");
  expect(() => loadConfig({ PORT: "x" })).toThrow("The configuration has a mistake:");
});

describe("production", () => {
  it("with everything that it requires is accepted, and logs JSON", () => {
    const admin = { ADMIN_EMAIL: "a@b.co", ADMIN_PASSWORD: "one of its own" };
    expect(loadConfig({ ...PRODUCTION, ...admin })).toMatchObject({
      production: true,
      log: { format: "json" },
      bcryptCost: 12,
      drainDelaySeconds: 5,
    });
  });

  it("has no default for the transporter and the databases", () => {
    expect(mistakes({ NODE_ENV: "production" })).toEqual([
      expect.stringContaining("USERS_DATABASE_URL is missing"),
      expect.stringContaining("PRODUCTS_DATABASE_URL is missing"),
      expect.stringContaining("ORDERS_DATABASE_URL is missing"),
      expect.stringContaining("KEY_ENCRYPTION_KEY is missing"),
      expect.stringContaining("TRANSPORTER is missing"),
    ]);
  });

  it("requires the key of the signing keys only on nodes that host users", () => {
    const { KEY_ENCRYPTION_KEY: _, ...without } = PRODUCTION;
    for (const SERVICES of ["api", "products,orders"]) expect(mistakes({ ...without, SERVICES })).toEqual([]);
    expect(mistakes({ ...without, SERVICES: "api,users" })).toEqual([expect.stringContaining("`openssl rand -base64 32`")]);
  });

  const KNOWN = ["guest", "postgres", "password", "admin", "secret", "shop-dev", "change-me", "gu%65st", ""];
  it.each(Object.keys({ ...TRANSPORTER, ...DATABASES }))("refuses a default password or none in %s", (name) => {
    const url = (password: string): string =>
      `${name === "TRANSPORTER" ? "amqp" : "postgres"}://x:${password}@${name.toLowerCase().replaceAll("_", "-")}/x`;
    for (const password of KNOWN) {
      expect(mistakes({ ...PRODUCTION, [name]: url(password) })).toEqual([
        expect.stringMatching(`^${name} has a default password or none`),
      ]);
      expect(mistakes({ ...DATABASES, [name]: url(password) })).toEqual([]); // accepted outside production
    }
    expect(mistakes({ ...PRODUCTION, [name]: url("one-of-its-own") })).toEqual([]);
  });

  it.each([
    ["postgres://x:one-of-its-own@h/x?password=postgres", true],
    ["postgres://x:postgres@h/x?password=one-of-its-own", false],
    ["postgres://x@h/x?password=one-of-its-own", false],
    ["postgres://x@h/x?sslcert=client.pem", false],
    ["postgres://x:postgres@h/x?sslcert=client.pem", true],
  ])("reads the password in %s as pg does", (url, isRefused) => {
    const refusal = expect.stringMatching(/^USERS_DATABASE_URL has a default password or none/) as unknown;
    expect(mistakes({ ...PRODUCTION, USERS_DATABASE_URL: url })).toEqual(isRefused ? [refusal] : []);
  });

  it("refuses a default password in any URL of TRANSPORTER, once", () => {
    const refusal = [expect.stringMatching(/^TRANSPORTER has a default password or none/)];
    for (const others of ["amqp://x:guest@b", "amqp://x:guest@b,amqp://x@c", "amqp://x:gu%65st@b,amqp://x:one-of-its-own@c"])
      expect(mistakes({ ...PRODUCTION, TRANSPORTER: `${TRANSPORTER.TRANSPORTER},${others}` })).toEqual(refusal);
    expect(mistakes({ ...PRODUCTION, TRANSPORTER: `${TRANSPORTER.TRANSPORTER},amqp://x:one-of-its-own@b` })).toEqual([]);
  });

  it.each(["password", "postgres", "shop-dev", "change-me"])("refuses the admin's password %s", (password) => {
    const admin = { ADMIN_EMAIL: "a@b.co", ADMIN_PASSWORD: password };
    expect(mistakes({ ...PRODUCTION, ...admin })).toEqual([expect.stringContaining("ADMIN_PASSWORD is a default one")]);
  });

  it("requires https in PUBLIC_URL", () => {
    expect(mistakes({ ...PRODUCTION, PUBLIC_URL: "http://shop.example" })).toEqual([expect.stringContaining("must be an https:// origin")]);
    expect(mistakes({ ...PRODUCTION, PUBLIC_URL: "https://shop.example" })).toEqual([]);
    expect(mistakes({ PUBLIC_URL: "http://shop.example" })).toEqual([]); // accepted outside production
  });

  it("requires a hashing cost of at least 10", () => {
    expect(mistakes({ ...PRODUCTION, BCRYPT_COST: "9" })).toEqual(['BCRYPT_COST is "9": set a whole number from 10 to 16']);
    expect(mistakes({ ...PRODUCTION, BCRYPT_COST: "10" })).toEqual([]);
  });
});

describe("no error contains a password", () => {
  const SECRET = "canary-5c1e";
  it.each<Env>([
    { TRANSPORTER: `amqp:/u:${SECRET}@mq` },
    { TRANSPORTER: `nats://u:${SECRET}@mq` },
    { TRANSPORTER: `amqp://u:${SECRET}@mq:99999999` },
    { TRANSPORTER: `amqp://u:${SECRET}@mq,amqp:/u:${SECRET}@mq` },
    { TRANSPORTER: `amqp://u:${SECRET},${SECRET}@mq` },
    { TRANSPORTER: Array(17).fill(`amqp://u:${SECRET}@mq`).join() },
    { USERS_DATABASE_URL: `postgres//u:${SECRET}@db/x` },
    { ORDERS_DATABASE_URL: `mysql://u:${SECRET}@db/x`, PORT: "x" },
    { ADMIN_PASSWORD: SECRET },
    { ADMIN_EMAIL: "x", ADMIN_PASSWORD: SECRET.repeat(9) },
    { USERS_DATABASE_URL: `postgres://u:${SECRET}@db/x`, ORDERS_DATABASE_URL: `postgres://u:${SECRET}@db/x` },
    { SERVICES: "orders", ORDERS_DATABASE_URL: `postgres://u:${SECRET}@db/x` },
    { CORS_ORIGINS: `https://u:${SECRET}@shop.example` },
    { PUBLIC_URL: `https://u:${SECRET}@shop.example` },
  ])("%j", (env) => {
    expect(mistakes(env)).not.toEqual([]);
    expect(mistakes(env).join()).not.toContain(SECRET);
  });

  it("a password with an invalid percent-encoding is reported like other errors, and doesn't crash", () => {
    expect(mistakes({ ...PRODUCTION, TRANSPORTER: `amqp://u:100%${SECRET}@mq` }).join()).not.toContain(SECRET);
  });

  it("whatever the environment, it is accepted or refused with a ConfigError", () => {
    const names = [
      "NODE_ENV",
      "SERVICES",
      "PORT",
      "NAMESPACE",
      "CORS_ORIGINS",
      "ADMIN_EMAIL",
      "ADMIN_PASSWORD",
      ...Object.keys(PRODUCTION),
    ];
    const value = fc.oneof(fc.string(), fc.webUrl(), fc.constantFrom("production", "api", ...Object.values(PRODUCTION)));
    const anything = fc.dictionary(fc.constantFrom(...names), value);
    fc.assert(
      fc.property(anything, (env) => void mistakes(env)),
      { numRuns: 500 },
    );
  });
});
