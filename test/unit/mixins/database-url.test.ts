import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { databaseMixin } from "../../../mixins/database.mixin";
import { serversOf, urlMistake, withDatabase } from "../../../mixins/database-url";

/** The pool's options for a URL of one server; migrations pass the same URL to pg unchanged. */
function poolOf(url: string): Record<string, unknown> {
  const { adapter } = databaseMixin({ service: "orders", url, migrations: "", model: { name: "orders", define: {} } }) as unknown as {
    adapter: { opts: [Record<string, unknown> & { dialectOptions: { ssl: unknown } }] };
  };
  const { host, port, database, username, password, dialectOptions } = adapter.opts[0];
  return { host, port, database, username, password, ssl: dialectOptions.ssl };
}

describe("a database's URL", () => {
  it("may have a percent-encoded user name, password and database", () => {
    expect(poolOf("postgres://an%40na:p%3A%2F1@db.internal:6543/the%20orders")).toEqual({
      host: "db.internal",
      port: 6543,
      database: "the orders",
      username: "an@na",
      password: "p:/1",
      ssl: false,
    });
  });

  it("may name a socket's folder and omit the port", () => {
    expect(poolOf("postgres://shop@/orders?host=/run/postgresql")).toMatchObject({
      host: "/run/postgresql",
      port: 5432,
      database: "orders",
    });
  });

  it.each([
    ["no-verify", { rejectUnauthorized: false }],
    ["disable", false],
    ["verify-full", {}], // Node verifies the certificate and the host name by default
    ["require&uselibpqcompat=true", { rejectUnauthorized: false }], // as in libpq
  ])("configures encryption with sslmode=%s", (mode, ssl) => {
    expect(poolOf(`postgres://shop:secret@db.internal/orders?sslmode=${mode}`)["ssl"]).toEqual(ssl);
  });

  it("may name the files of a certificate authority, and of a client's certificate and key", () => {
    const folder = mkdtempSync(path.join(tmpdir(), "shop-test-tls-"));
    try {
      const files = Object.entries({ sslrootcert: "an authority", sslcert: "a certificate", sslkey: "a key" }).map(([name, content]) => {
        writeFileSync(path.join(folder, name), content);
        return `${name}=${path.join(folder, name)}`;
      });
      const { ssl } = poolOf(`postgres://shop:secret@db.internal/orders?sslmode=verify-full&${files.join("&")}`);
      // as Moleculer and Sequelize copy it: without hidden properties
      expect({ ...Object(ssl) }).toEqual({ ca: "an authority", cert: "a certificate", key: "a key" });
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});

describe("a database's URL with several servers", () => {
  const URLS = "postgresql://u:p%2C,w@h1:5432,[::1],h3:6000/the%20orders?target_session_attrs=read-write&sslmode=no-verify";

  it("stands for one URL per server, with the common parts", () => {
    const rest = "/the%20orders?target_session_attrs=read-write&sslmode=no-verify";
    expect(serversOf(URLS)).toEqual(["h1:5432", "[::1]", "h3:6000"].map((server) => `postgresql://u:p%2C,w@${server}${rest}`));
    expect(poolOf(URLS)).toMatchObject({ host: "h1", port: 5432, database: "the orders", username: "u", password: "p,,w" });
  });

  it("can be changed to another database", () => {
    expect(withDatabase("postgres://u:p@h1,h2:1/orders?sslmode=disable", "a b")).toBe("postgres://u:p@h1,h2:1/a%20b?sslmode=disable");
    expect(withDatabase("postgres://h1", "postgres")).toBe("postgres://h1/postgres");
  });

  it.each(["read-write", "primary"])("may ask for the primary, which is always used: target_session_attrs=%s", (attributes) => {
    expect(urlMistake(`postgres://h1,h2/x?target_session_attrs=${attributes}`)).toBeUndefined();
  });

  it.each([
    ["postgres://h1,h2/x?target_session_attrs=any", "read-write"],
    ["postgres://h1/x?target_session_attrs=standby", "read-write"],
    ["postgres://h/x?host=h1,h2", "host1:5432,host2:5432"],
    ["postgres://h/x?sslmod=require", "unknown parameter, sslmod:"],
    ["postgres://h/x?sslmode=require&statement_timeout=5", "unknown parameter, statement_timeout:"],
    ["postgres://h/x?sslmode=allow", "set one of disable, prefer"],
  ])("can't be %s, and the error names %s", (url, reason) => {
    expect(urlMistake(url)).toContain(reason);
  });
});
