import { createSecretKey, randomBytes, type KeyObject } from "node:crypto";
import path from "node:path";
import proxyaddr from "proxy-addr";
import { check } from "./broker/validator";
import { register } from "./contracts/users";
import { serversOf, urlMistake } from "./mixins/database-url";
import { readVariableFile } from "./variable-file";

/** The one list of services. Other lists in the code are derived from it, fail to compile if one is missing, or are compared with it by a test. */
export const SERVICES = ["api", "users", "products", "orders"] as const;
export type ServiceName = (typeof SERVICES)[number];
/** The services that own a database. */
export type DatabaseName = Exclude<ServiceName, "api">;
/** The variable that holds the URL of each database. */
export const DATABASES = {
  users: "USERS_DATABASE_URL",
  products: "PRODUCTS_DATABASE_URL",
  orders: "ORDERS_DATABASE_URL",
} as const satisfies { [Name in DatabaseName]: `${Uppercase<Name>}_DATABASE_URL` };
/** Segments of unreserved characters (RFC 3986, 2.3), which proxies and browsers leave unchanged unless the segment is `.` or `..`. */
const BASE_PATH = /^(?:\/(?!\.{1,2}(?:\/|$))[A-Za-z0-9._~-]+)+$/;
/** Maximum servers in a URL or a list of URLs: more than any cluster has. */
const MAX_SERVERS = 16;

export type Config = ReturnType<typeof read>;
type Env = Readonly<Record<string, string | undefined>>;

/** All mistakes in the environment, reported together. */
export class ConfigError extends Error {
  /** @param logFormat the format of the log in which the message appears */
  constructor(
    readonly mistakes: readonly string[],
    readonly logFormat: "short" | "json" = "short",
  ) {
    super(
      `The configuration has ${mistakes.length === 1 ? "a mistake" : `${mistakes.length} mistakes`}:\n` +
        mistakes.map((m) => `  - ${m}`).join("\n"),
    );
    this.name = "ConfigError";
  }
}

/**
 * Reads and validates the environment, which nothing else reads.
 * @throws ConfigError with every mistake, and what to set instead
 */
export function loadConfig(env: Env = process.env): Config {
  const mistakes: string[] = [];
  const config = read(new Reader(env, mistakes));
  checkTogether(config, mistakes);
  if (mistakes.length > 0) throw new ConfigError(mistakes, config.log.format);
  return config;
}

function read(env: Reader) {
  const production = env.choice("NODE_ENV", ["development", "test", "production"], "development") === "production";
  const services = env.list("SERVICES", SERVICES);
  const port = env.integer("PORT", 8000, 0, 65_535);
  const hosted: readonly ServiceName[] = services.length > 0 ? services : SERVICES;
  return {
    production,
    /** Whether the node hosts every service: only then may a missing database be an embedded one. */
    hostsAll: hosted.length === SERVICES.length,
    services: hosted,
    port,
    host: env.text("HOST", "127.0.0.1"),
    /** The gateway's origin as clients see it: the issuer of the OAuth metadata. If undefined, there are no metadata. */
    publicUrl: env.origin("PUBLIC_URL") ?? (production ? undefined : `http://localhost:${port}`),
    /** The path under which a proxy publishes the gateway, such as /shop; empty at the root. */
    basePath: env.basePath("BASE_PATH"),
    /** RabbitMQ URLs; several for a cluster. */
    transporter: env.urls("TRANSPORTER", ["amqp:", "amqps:"]),
    databases: {
      users: env.databaseUrl(DATABASES.users),
      products: env.databaseUrl(DATABASES.products),
      orders: env.databaseUrl(DATABASES.orders),
    } satisfies Record<DatabaseName, string | undefined>,
    dataDir: path.resolve(env.text("DATA_DIR", ".data")),
    namespace: env.match("NAMESPACE", /^[A-Za-z0-9_-]{1,64}$/, "shop", "letters, digits, - and _"),
    nodeId: env.match(
      "NODE_ID",
      /^[A-Za-z0-9_.+-]{1,128}$/,
      `${services.length > 0 ? services.join("+") : "shop"}-${randomBytes(4).toString("hex")}`,
      "letters, digits, - _ . and +",
    ),
    log: {
      level: env.choice("LOG_LEVEL", ["fatal", "error", "warn", "info", "debug", "trace"], "info"),
      format: env.choice("LOG_FORMAT", ["short", "json"], production ? "json" : "short"),
    },
    accessTokenTtlSeconds: env.integer("ACCESS_TOKEN_TTL", 900, 1, 86_400),
    refreshTokenTtlSeconds: env.integer("REFRESH_TOKEN_TTL", 2_592_000, 1, 31_536_000),
    /** At most a minute: a replaced signing key stays published for that long after it last derived a refresh token. */
    refreshGraceSeconds: env.integer("REFRESH_GRACE", 10, 0, 60),
    bcryptCost: env.integer("BCRYPT_COST", 12, production ? 10 : 4, 16),
    admin: env.admin(),
    /** Keys that encrypt the signing keys in user_db; the older one only decrypts. KeyObjects, which can't leak into logs when printed. */
    keyEncryption: { key: env.encryptionKey("KEY_ENCRYPTION_KEY"), older: env.encryptionKey("KEY_ENCRYPTION_KEY_OLD") },
    corsOrigins: env.origins("CORS_ORIGINS"),
    /** Idle timeout of connections, in seconds. Must exceed that of a proxy in front, which might otherwise reuse a closing connection. */
    keepAliveSeconds: env.integer("KEEP_ALIVE_TIMEOUT", 75, 1, 3_600),
    /** Seconds for which a gateway keeps serving at shutdown although it is not ready, so that load balancers notice. */
    drainDelaySeconds: env.integer("DRAIN_DELAY", production ? 5 : 0, 0, 300),
    /** Attempts per minute, as described in services/users/logins.ts; `requests` per second and client. 0 means no limit. */
    rateLimit: {
      auth: env.integer("RATE_LIMIT_AUTH", 10, 0, 1_000_000),
      account: env.integer("RATE_LIMIT_ACCOUNT", 100, 0, 1_000_000),
      address: env.integer("RATE_LIMIT_ADDRESS", 100, 0, 1_000_000),
      register: env.integer("RATE_LIMIT_REGISTER", 20, 0, 1_000_000),
      password: env.integer("RATE_LIMIT_PASSWORD", 10, 0, 1_000_000),
      requests: env.integer("RATE_LIMIT", 0, 0, 1_000_000),
    },
    /** Proxies whose X-Forwarded-For and X-Forwarded-Proto headers are trusted. */
    trustProxy: env.proxies("TRUST_PROXY"),
    ops: { port: env.optionalInteger("OPS_PORT", 0, 65_535), host: env.text("OPS_HOST", "127.0.0.1") },
    outbox: {
      retryMs: env.integer("OUTBOX_RETRY_MS", 5_000, 10, 3_600_000),
      retryMaxMs: env.integer("OUTBOX_RETRY_MAX_MS", 60_000, 10, 3_600_000),
    },
  };
}

/** Well-known passwords; `shop-dev` is that of docker-compose.yml and .env.example. */
const KNOWN_PASSWORDS = new Set(["", "guest", "postgres", "password", "admin", "secret", "shop-dev", "change-me"]);

function checkTogether(config: Config, mistakes: string[]): void {
  if (!config.hostsAll && config.transporter === undefined) {
    mistakes.push(
      "SERVICES names only part of the shop: set TRANSPORTER (amqp://user:password@host:5672) to connect it to the others, or unset SERVICES",
    );
  }
  for (const [service, variable] of databaseNames()) {
    if (config.databases[service] !== undefined || !config.services.includes(service)) continue;
    if (config.production) mistakes.push(`${variable} is missing: production has no embedded PostgreSQL`);
    else if (!config.hostsAll)
      mistakes.push(`${variable} is missing: a node with SERVICES set needs the database of each service it hosts`);
  }
  const databases = databaseNames().flatMap(([service]) => config.databases[service] ?? []);
  if (new Set(databases).size < databases.length) mistakes.push("two services share one database URL: each needs a database of its own");
  if (config.outbox.retryMaxMs < config.outbox.retryMs) mistakes.push("OUTBOX_RETRY_MAX_MS must not be below OUTBOX_RETRY_MS");
  if (config.refreshTokenTtlSeconds < config.accessTokenTtlSeconds)
    mistakes.push("REFRESH_TOKEN_TTL must not be below ACCESS_TOKEN_TTL: an access token must not outlive its session");
  if (config.services.includes("api") && config.port > 0 && config.ops.port === config.port && overlap(config.host, config.ops.host))
    mistakes.push("OPS_PORT equals PORT: the health of a node is served on a port of its own");
  const { key, older } = config.keyEncryption;
  if (older !== undefined && (key === undefined || key.equals(older)))
    mistakes.push("KEY_ENCRYPTION_KEY_OLD is set, but KEY_ENCRYPTION_KEY is missing or the same: set KEY_ENCRYPTION_KEY to the new key");
  if (!config.production) return;
  if (config.publicUrl?.startsWith("http:") === true)
    mistakes.push("PUBLIC_URL begins with http: in production it must be an https:// origin (RFC 8414, section 2)");
  if (key === undefined && config.services.includes("users"))
    mistakes.push("KEY_ENCRYPTION_KEY is missing: production encrypts the signing keys; set what `openssl rand -base64 32` prints");
  if (config.transporter === undefined)
    mistakes.push("TRANSPORTER is missing: production connects its nodes through RabbitMQ; set amqp://user:password@host:5672");
  const urls: [string, readonly string[]][] = [
    ["TRANSPORTER", config.transporter ?? []],
    ...databaseNames().map(([s, v]): [string, readonly string[]] => [
      v,
      config.databases[s] === undefined ? [] : serversOf(config.databases[s]),
    ]),
  ];
  for (const [variable, ofVariable] of urls) {
    if (ofVariable.some((url) => hasKnownPassword(new URL(url))))
      mistakes.push(`${variable} has a default password or none: production needs one of its own`);
  }
  if (config.admin && KNOWN_PASSWORDS.has(config.admin.password))
    mistakes.push("ADMIN_PASSWORD is a default one: production needs one of its own");
}

/** Whether two servers on the same port get in each other's way; a host may be a wildcard. */
const overlap = (one: string, other: string): boolean => one === other || [one, other].some((host) => /^(?:0\.0\.0\.0|::)$/.test(host));

/** Whether a URL has a well-known password or none. PostgreSQL's may be a parameter, and a client certificate may take its place. */
function hasKnownPassword({ protocol, password, searchParams }: URL): boolean {
  if (!protocol.startsWith("postgres")) return KNOWN_PASSWORDS.has(decodeURIComponent(password));
  const its = searchParams.getAll("password").at(-1) || decodeURIComponent(password);
  return KNOWN_PASSWORDS.has(its) && !(its === "" && searchParams.has("sslcert"));
}

export const ownsDatabase = (name: string): name is DatabaseName => Object.hasOwn(DATABASES, name);

/** The services that own a database, each with the variable that holds its URL. */
export const databaseNames = (): [DatabaseName, string][] => SERVICES.filter(ownsDatabase).map((name) => [name, DATABASES[name]]);

const wordsOf = (list: string): string[] => list.split(",").flatMap((word) => word.trim() || []);

/** Whether a URL has a host, one of these protocols, and valid percent-encoding in its user, password and path. */
function isUrl(text: string, protocols: readonly string[]): boolean {
  if (/\s/.test(text) || !URL.canParse(text)) return false; // new URL() removes line endings; client libraries may not
  const { protocol, hostname, username, password, pathname } = new URL(text);
  try {
    for (const part of [username, password, pathname]) decodeURIComponent(part);
    return protocols.includes(protocol) && /^[\w.:[\]%-]+$/.test(hostname);
  } catch {
    return false; // invalid percent-encoding
  }
}

/** Not a bare number: it usually means how many proxies there are, but proxy-addr reads it as an IPv4 address. */
function isProxy(text: string): boolean {
  if (/^(?:0x[\da-f]+|\d+)(?:\/|$)/i.test(text)) return false;
  try {
    proxyaddr.compile(text);
    return true;
  } catch {
    return false;
  }
}

/** The parameters of a URL that amqplib reads. */
const AMQP_PARAMETERS: ReadonlySet<string> = new Set(["heartbeat", "frameMax", "channelMax", "locale"]);
const AMQP_ADVICE = "it would be ignored. A private CA is trusted by NODE_EXTRA_CA_CERTS, the path of its certificate";

const isWebOrigin = (text: string): boolean => URL.canParse(text) && new URL(text).origin === text && !text.includes("*");
/** The origins of apps' web views, too, such as capacitor://localhost: to the URL Standard they are opaque, but browsers send them. */
const isOrigin = (text: string): boolean =>
  isWebOrigin(text) || /^(?!https?:|wss?:|ftp:|file:)[a-z][a-z0-9+.-]*:\/\/[a-z0-9.-]+(?::\d+)?$/.test(text);

/**
 * Reads single variables, from the environment or from the file that NAME_FILE names. On a mistake it records the mistake and
 * continues with the default. An empty variable counts as unset.
 */
class Reader {
  constructor(
    private readonly env: Env,
    private readonly mistakes: string[],
  ) {}

  private value(name: string): string | undefined {
    const value = this.untrimmed(name)?.trim();
    return value === "" ? undefined : value;
  }

  private untrimmed(name: string): string | undefined {
    const value = this.env[name];
    const file = this.file(name);
    if (file === undefined) return this.singleLine(name, value);
    try {
      if (value !== undefined && value.trim() !== "") throw new Error(`${name} is set as well: set one of them`);
      return this.singleLine(name, readVariableFile(file));
    } catch (error) {
      this.mistakes.push(`${name}_FILE can't be used: ${error instanceof Error ? error.message : "its file can't be read"}`);
      return undefined;
    }
  }

  /** A line ending comes from a file that was written on Windows, or from quoting in a shell: as part of a password, nobody could type it. */
  private singleLine(name: string, value: string | undefined): string | undefined {
    if (value === undefined || value.trim() === "" || !/[\r\n]/.test(value)) return value;
    this.mistakes.push(`${name} contains a line ending: remove it`);
    return value.replace(/[\r\n]+/g, ""); // no other mistake follows from this one
  }

  private file(name: string): string | undefined {
    return this.env[`${name}_FILE`]?.trim() || undefined;
  }

  /** The value for messages. Values from files are hidden: if NAME_FILE names the wrong file, they may be secrets. */
  private shown(name: string, value: string): string {
    return this.file(name) === undefined ? `"${value}"` : `"…" (from ${name}_FILE)`;
  }

  text(name: string, fallback: string): string {
    return this.value(name) ?? fallback;
  }

  integer(name: string, fallback: number, min: number, max: number): number {
    return this.optionalInteger(name, min, max) ?? fallback;
  }

  optionalInteger(name: string, min: number, max: number): number | undefined {
    const value = this.value(name);
    if (value === undefined) return undefined;
    const number = Number(value);
    if (/^\d+$/.test(value) && number >= min && number <= max) return number;
    this.mistakes.push(`${name} is ${this.shown(name, value)}: set a whole number from ${min} to ${max}`);
    return undefined;
  }

  choice<T extends string>(name: string, choices: readonly T[], fallback: T): T {
    const value = this.value(name);
    if (value === undefined) return fallback;
    const choice = choices.find((known) => known === value);
    if (choice === undefined) this.mistakes.push(`${name} is ${this.shown(name, value)}: set one of ${choices.join(", ")}`);
    return choice ?? fallback;
  }

  match(name: string, form: RegExp, fallback: string, allowed: string): string {
    const value = this.value(name);
    if (value === undefined || form.test(value)) return value ?? fallback;
    this.mistakes.push(`${name} is ${this.shown(name, value)}: only ${allowed} are allowed`);
    return fallback;
  }

  /** A path in front of all others, without a slash at its end; empty if there is none. */
  basePath(name: string): string {
    const value = this.value(name);
    if (value === undefined || BASE_PATH.test(value)) return value ?? "";
    const form = "a path such as /shop, with a slash at its start and none at its end, of letters, digits, - . _ and ~";
    this.mistakes.push(`${name} is ${this.shown(name, value)}: set ${form}`);
    return "";
  }

  words(name: string): string[] {
    return wordsOf(this.value(name) ?? "");
  }

  list<T extends string>(name: string, choices: readonly T[]): T[] {
    return [...new Set(this.words(name))].flatMap((word) => {
      const choice = choices.find((known) => known === word);
      if (choice === undefined) this.mistakes.push(`${name} names ${this.shown(name, word)}: the services are ${choices.join(", ")}`);
      return choice ?? [];
    });
  }

  /** A URL that may name several servers. Messages must not contain it, because of the password. */
  databaseUrl(name: string): string | undefined {
    const value = this.value(name);
    if (value === undefined) return undefined;
    const servers = serversOf(value);
    if (servers.length > MAX_SERVERS || !servers.every((server) => isUrl(server, ["postgres:", "postgresql:"]))) {
      this.mistakes.push(`${name} is not a URL of the form postgres://user:password@host:port/… (or several servers: host:port,host:port)`);
      return undefined;
    }
    const mistake = urlMistake(value);
    if (mistake !== undefined) this.mistakes.push(`${name} ${mistake}`);
    return value;
  }

  /** Comma-separated URLs; undefined if none is valid. */
  urls(name: string, protocols: readonly string[]): readonly string[] | undefined {
    const value = this.value(name);
    if (value === undefined) return undefined;
    const urls = wordsOf(value);
    const valid = urls.filter((url) => isUrl(url, protocols));
    const form = `${protocols[0] ?? ""}//user:password@host:port/…`;
    if (urls.length > MAX_SERVERS) this.mistakes.push(`${name} has ${urls.length} URLs: set ${MAX_SERVERS} at most`);
    for (const url of valid)
      for (const parameter of new URL(url).searchParams.keys())
        if (!AMQP_PARAMETERS.has(parameter)) this.mistakes.push(`${name} has the parameter ${this.shown(name, parameter)}: ${AMQP_ADVICE}`);
    if (urls.length <= 1 && valid.length === 0) this.mistakes.push(`${name} is not a URL of the form ${form}`);
    else if (valid.length < urls.length) {
      const wrong = urls.flatMap((url, i) => (valid.includes(url) ? [] : i + 1)).join(", ");
      this.mistakes.push(`${name} has ${urls.length} URLs, and these are not of the form ${form} (a comma in a password is %2C): ${wrong}`);
    }
    return valid.length > 0 ? valid : undefined;
  }

  proxies(name: string): string[] {
    return this.words(name).flatMap((word) => {
      if (isProxy(word)) return word;
      this.mistakes.push(
        `${name} has ${this.shown(name, word)}: set addresses, ranges such as 10.0.0.0/8, or loopback, linklocal, uniquelocal`,
      );
      return [];
    });
  }

  /** The origin of a web server. */
  origin(name: string): string | undefined {
    const value = this.value(name);
    if (value === undefined || (isWebOrigin(value) && /^https?:/.test(value))) return value;
    const shown = this.shown(name, value.replace(/\/\/.*@/, "//"));
    this.mistakes.push(`${name} is ${shown}: set an origin such as https://shop.example.com, without a path`);
    return undefined;
  }

  origins(name: string): string[] {
    return this.words(name).flatMap((word) => {
      if (isOrigin(word)) return word;
      this.mistakes.push(
        `${name} has ${this.shown(name, word.replace(/\/\/.*@/, "//"))}: set exact origins such as https://shop.example.com, without a path or *`,
      );
      return [];
    });
  }

  /** A key for AES-256: 32 bytes in base64. */
  encryptionKey(name: string): KeyObject | undefined {
    const value = this.value(name);
    if (value === undefined) return undefined;
    const bytes = Buffer.from(value, "base64");
    if (bytes.length === 32 && bytes.toString("base64") === value) return createSecretKey(bytes);
    this.mistakes.push(`${name} is not 32 bytes in base64: set what \`openssl rand -base64 32\` prints`);
    return undefined;
  }

  admin(): { email: string; password: string } | undefined {
    const email = this.value("ADMIN_EMAIL")?.normalize("NFC");
    const password = this.untrimmed("ADMIN_PASSWORD")?.normalize("NFC") || undefined; // surrounding spaces are part of it
    if (email === undefined && password === undefined) return undefined;
    if (email === undefined || password === undefined) {
      this.mistakes.push("ADMIN_EMAIL and ADMIN_PASSWORD go together: set both or neither");
      return undefined;
    }
    const wrong = new Set(check(register.params, { email, password }).map((error) => error.field));
    if (wrong.has("email")) this.mistakes.push("ADMIN_EMAIL is not an e-mail address");
    if (wrong.has("password"))
      this.mistakes.push("ADMIN_PASSWORD must have at least 8 characters, at most 72 bytes and at most 30 combining marks in a row");
    return { email, password };
  }
}
