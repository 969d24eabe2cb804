import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { Client as Postgres } from "pg";
import { DATABASES, databaseNames, type DatabaseName } from "../../../config";
import { startTestPostgres, type TestPostgres } from "../../../testkit/postgres";
import { textOf, ROOT } from "../../../testkit/repository";
import { environmentOf, type Env } from "./compose-file";

const run = promisify(execFile);

/** A separate PostgreSQL server for the init script, since roles and the rights on `postgres` belong to the whole server. */
export class Cluster {
  private readonly superuser: URL;
  readonly urls: Readonly<Record<DatabaseName, URL>>;

  private constructor(private readonly server: TestPostgres) {
    this.superuser = new URL(this.server.url("postgres"));
    this.superuser.username = "the_image";
    this.superuser.password = "loses-it";
    const own = (name: DatabaseName): URL => {
      const url = new URL(environmentOf(name)[DATABASES[name]]!);
      url.host = this.superuser.host;
      return url;
    };
    this.urls = { users: own("users"), products: own("products"), orders: own("orders") };
  }

  static async start(): Promise<Cluster> {
    return new Cluster(await startTestPostgres());
  }

  /** Runs the script as the image does: as the superuser. */
  async initialise(runScript: RunScript): Promise<void> {
    const { username, password } = this.superuser;
    const exists = (await this.asAdmin(`select 1 from pg_roles where rolname = '${username}'`)).length > 0;
    await this.asAdmin(`${exists ? "alter" : "create"} role ${username} superuser login password '${password}'`);
    const env = databaseNames().map(([service, variable]) => [variable, this.urls[service].href]);
    await runScript(this.superuser.href, Object.fromEntries(env) as Env);
  }

  asAdmin(sql: string): Promise<unknown[][]> {
    return query(this.server.url("postgres"), sql);
  }

  /** The stored password hashes, by role. */
  async passwords(): Promise<Record<string, unknown>> {
    return Object.fromEntries(
      await this.asAdmin("select rolname, rolpassword from pg_authid where rolname ~ '_svc$|^the_image$'"),
    ) as Record<string, unknown>;
  }

  /** Restores the state from before the script ran. */
  async reset(): Promise<void> {
    for (const { pathname, username } of Object.values(this.urls)) {
      await this.asAdmin(`drop database if exists ${pathname.slice(1)} with (force)`);
      await this.asAdmin(`drop role if exists ${username}`);
    }
    await this.asAdmin("grant connect, temporary on database postgres, template1 to public");
  }

  stop(): Promise<void> {
    return this.server.stop();
  }
}

export async function query(url: string, sql: string): Promise<unknown[][]> {
  const client = new Postgres({ connectionString: url });
  await client.connect();
  try {
    return (await client.query<unknown[]>({ text: sql, rowMode: "array" })).rows;
  } finally {
    await client.end();
  }
}

export type RunScript = (url: string, env: Env) => Promise<void>;
const SCRIPT = "docker/postgres-init.sql";

export const withPsql: RunScript = async (url, env) => {
  await run("psql", [url, "--no-psqlrc", "--file", SCRIPT], { cwd: ROOT, env: { ...process.env, ...env } });
};

/** Whether psql is installed in version 15 or later, which introduced \getenv. */
export async function hasPsql(): Promise<boolean> {
  try {
    return parseInt(/\d+/.exec((await run("psql", ["--version"])).stdout)?.[0] ?? "") >= 15;
  } catch {
    return false;
  }
}

/** Emulates psql's \getenv, :'variable' and \gexec, since the PostgreSQL from npm has no psql. */
export const withoutPsql: RunScript = async (url, env) => {
  const client = new Postgres({ connectionString: url });
  await client.connect();
  try {
    const variables: Record<string, string> = {};
    let statement = "";
    for (const line of textOf(SCRIPT).split(/\r?\n/)) {
      const [command, name = "", variable = ""] = line.split(" ");
      if (command === "\\getenv") variables[name] = env[variable] ?? "";
      else if (command === "\\gexec") {
        const { rows } = await client.query<string[]>({ text: statement, rowMode: "array" });
        for (const sql of rows.flat()) await client.query(sql);
        statement = "";
      } else if (!/^(--|\\)/.test(line)) {
        statement += line.replace(/:'(\w+)'/g, (_, used: string) => client.escapeLiteral(variables[used]!)) + "\n";
        if (!line.endsWith(";")) continue;
        await client.query(statement);
        statement = "";
      }
    }
  } finally {
    await client.end();
  }
};
