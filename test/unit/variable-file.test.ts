import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { ConfigError, loadConfig } from "../../config";

const SECRET = "canary-77b0";
const directory = mkdtempSync(path.join(tmpdir(), "shop-variables-"));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

let files = 0;
function file(content: string | Buffer): string {
  const name = path.join(directory, `canary-name-${++files}`);
  writeFileSync(name, content);
  return name;
}

function mistakes(env: Readonly<Record<string, string>>): readonly string[] {
  try {
    loadConfig(env);
    return [];
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    expect(error.message).not.toMatch(/canary/); // neither the contents nor the name, which may be a secret in the wrong variable
    return error.mistakes;
  }
}

const ADMIN_EMAIL = "a@b.co";
const adminPassword = (content: string | Buffer) => loadConfig({ ADMIN_EMAIL, ADMIN_PASSWORD_FILE: file(content) }).admin?.password;

it.each([
  ["none", "correct horse", "correct horse"],
  ["a line feed", "correct horse\n", "correct horse"],
  ["a carriage return and line feed", "correct horse\r\n", "correct horse"],
  ["spaces and a line feed", "  correct horse \n", "  correct horse "],
  ["a byte order mark before it", "\ufeffcorrect horse\n", "correct horse"],
])("only one line ending is removed from a file: %s", (_what, content, password) => {
  expect(adminPassword(content)).toBe(password);
});

it.each(["correct horse\n\n", "correct horse\r\n\n", "correct horse\n\r"])("a password of more than one line is refused: %j", (content) => {
  expect(mistakes({ ADMIN_EMAIL, ADMIN_PASSWORD_FILE: file(content) })).toEqual([expect.stringContaining("contains a line ending")]);
});

it("any variable may come from a file: numbers, lists, URLs, keys", () => {
  const key = Buffer.alloc(32, 7).toString("base64");
  const values = {
    NODE_ENV: "production",
    SERVICES: "api, users",
    PORT: "8123",
    TRANSPORTER: `amqp://shop:${SECRET}@mq:5672/shop`,
    USERS_DATABASE_URL: `postgres://u:${SECRET}@db/user_db`,
    TRUST_PROXY: "10.0.0.1",
    KEY_ENCRYPTION_KEY: key,
    ADMIN_EMAIL,
    ADMIN_PASSWORD: SECRET,
  };
  const env = Object.fromEntries(Object.entries(values).map(([name, value]) => [`${name}_FILE`, file(`${value}\n`)]));
  expect(loadConfig(env)).toMatchObject({
    production: true,
    services: ["api", "users"],
    port: 8123,
    transporter: [values.TRANSPORTER],
    databases: { users: values.USERS_DATABASE_URL },
    trustProxy: ["10.0.0.1"],
    admin: { email: ADMIN_EMAIL, password: SECRET },
  });
  expect(loadConfig(env).keyEncryption.key?.export().toString("base64")).toBe(key);
});

it("an empty variable counts as unset if its file is given, and so does an empty NAME_FILE", () => {
  expect(loadConfig({ PORT: " ", PORT_FILE: file("81") }).port).toBe(81);
  expect(loadConfig({ PORT: "82", PORT_FILE: " " }).port).toBe(82);
});

it("a variable and its file together are refused", () => {
  expect(mistakes({ PORT: "81", PORT_FILE: file("81") })).toEqual(["PORT_FILE can't be used: PORT is set as well: set one of them"]);
});

it("a link to a file is followed, as Kubernetes mounts secrets", () => {
  const link = path.join(directory, "link");
  symlinkSync(file("83"), link);
  expect(loadConfig({ PORT_FILE: link }).port).toBe(83);
});

it.each<[what: string, name: () => string, reason: string]>([
  ["is missing", () => path.join(directory, "canary-missing"), "its file can't be read (ENOENT)"],
  ["is a secret that belongs in NAME", () => SECRET, "its file can't be read (ENOENT)"],
  ["is a folder", () => directory, "it does not name a regular file"],
  ["has no end", () => "/dev/zero", "it does not name a regular file"],
  ["is empty", () => file(""), "its file is empty"],
  ["is blank", () => file(" \n"), "its file is empty"],
  ["is too large", () => file("x".repeat(65_537)), "its file has more than 64 KiB"],
  ["is no text", () => file(Buffer.from([0x31, 0xff])), "its file is not UTF-8 text"],
  ["has a NUL", () => file("81\0"), "its file is not UTF-8 text"],
])("a file that %s is refused", (_what, name, reason) => {
  expect(mistakes({ HOST_FILE: name() })).toEqual([`HOST_FILE can't be used: ${reason}`]);
});

it("a pipe is refused without waiting for a writer", () => {
  const pipe = path.join(directory, "pipe");
  execFileSync("mkfifo", [pipe]);
  expect(mistakes({ HOST_FILE: pipe })).toEqual(["HOST_FILE can't be used: it does not name a regular file"]);
});

it("a file of 64 KiB is accepted", () => {
  expect(loadConfig({ HOST_FILE: file("x".repeat(65_536)) }).host).toHaveLength(65_536);
});

it("all errors are reported at once, without the contents of a file, which may be the wrong one", () => {
  const names = ["NODE_ENV", "SERVICES", "PORT", "TRANSPORTER", "USERS_DATABASE_URL", "NAMESPACE", "NODE_ID", "LOG_LEVEL", "BCRYPT_COST"];
  const more = ["KEY_ENCRYPTION_KEY", "CORS_ORIGINS", "TRUST_PROXY", "OPS_PORT", "ADMIN_EMAIL", "ADMIN_PASSWORD"];
  const content = file(`${SECRET}! ${"x".repeat(100)}\n`);
  const reason = mistakes(Object.fromEntries([...names, ...more].map((name) => [`${name}_FILE`, content])));
  expect(reason).toContain('PORT is "…" (from PORT_FILE): set a whole number from 0 to 65535');
  for (const name of [...names, ...more]) expect(reason).toContainEqual(expect.stringMatching(`^${name} `));
});
