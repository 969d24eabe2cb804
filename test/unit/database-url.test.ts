import { databaseMixin } from "../../mixins/database.mixin";

/** What the pool is given for a URL; migrations hand the same URL to pg as it is. */
function poolOf(url: string): Record<string, unknown> {
  const { adapter } = databaseMixin({ service: "orders", url, migrations: "", model: { name: "orders", define: {} } }) as unknown as {
    adapter: { opts: [Record<string, unknown> & { dialectOptions: { ssl: unknown } }] };
  };
  const { host, port, database, username, password, dialectOptions } = adapter.opts[0];
  return { host, port, database, username, password, ssl: dialectOptions.ssl };
}

describe("a database's URL", () => {
  it("may have a name, a password and a database in percent-encoding", () => {
    expect(poolOf("postgres://an%40na:p%3A%2F1@db.internal:6543/the%20orders")).toEqual({
      host: "db.internal",
      port: 6543,
      database: "the orders",
      username: "an@na",
      password: "p:/1",
      ssl: false,
    });
  });

  it("may name a socket's folder, and leave the port out", () => {
    expect(poolOf("postgres://shop@/orders?host=/run/postgresql")).toMatchObject({
      host: "/run/postgresql",
      port: 5432,
      database: "orders",
    });
  });

  it.each([
    ["no-verify", { rejectUnauthorized: false }],
    ["disable", false],
  ])("says with sslmode=%s whether, and how, the connection is encrypted", (mode, ssl) => {
    expect(poolOf(`postgres://shop:secret@db.internal/orders?sslmode=${mode}`)).toMatchObject({ ssl });
  });
});
