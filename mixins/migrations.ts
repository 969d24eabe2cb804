import { createHash } from "node:crypto";
import { readFile, readdir } from "node:fs/promises";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { Client, escapeIdentifier } from "pg";
import { Umzug } from "umzug";
import { reasonOf } from "../broker/errors";
import { serversOf, withDatabase } from "./database-url";
import { LockWatch } from "./lock-watch";
import { sessionOf } from "./pooler";
import { clientOf } from "./primary";
import { explainPrivilege, findExtensions, NO_PRIVILEGE } from "./privileges";
import { isLockTimeout, isRolledBack, sqlState } from "./sql-state";

/** Any number that is the same on all nodes: the node that holds the lock migrates, the others wait and find nothing left to do. */
const ADVISORY_LOCK = 7_205_759;

/** Another node's migrations may take that long. */
const ADVISORY_LOCK_TIMEOUT_MS = 60_000;
/**
 * While a migration waits for a table, all statements on that table queue behind it, including those of older nodes. This is shorter than
 * their time limits (a list's statement 500 ms, an order's insert 950 ms for a lock), so none of them fails.
 */
const LOCK_TIMEOUT_MS = 400;
const MAX_PAUSE_S = 30;
/** How soon a stopped node ends its wait. */
const LOOK_EVERY_MS = 250;

interface MigrationOptions {
  url: string;
  /** A folder of numbered SQL files; each runs once, in the order of their names, in a transaction of its own. */
  directory: string;
  log?: (line: string) => void;
}

/** No node of this version may use the database until an operator has done what the message says. */
export class MigrationRefused extends Error {
  constructor(message: string) {
    super(message);
    this.name = "MigrationRefused";
    delete this.stack; // the message is sufficient
  }
}

/** A migration was rolled back, since another session holds a lock that it needs. */
class MigrationBlocked extends Error {}

interface PatientOptions extends MigrationOptions {
  /** Whether the migration is still needed. */
  isWanted?: () => boolean;
  giveUpAfterMs?: number;
}

/**
 * Migrates, and retries while another session holds a lock that a migration needs. Between attempts other sessions are not blocked.
 * @returns false if the migration is no longer wanted
 * @throws MigrationRefused, also after `giveUpAfterMs`
 */
export async function migrateWhenFree({ isWanted = () => true, giveUpAfterMs = Infinity, ...options }: PatientOptions): Promise<boolean> {
  const deadline = performance.now() + giveUpAfterMs;
  for (let attempt = 0; ; attempt++) {
    try {
      await migrate(options);
      return true;
    } catch (error) {
      if (!(error instanceof MigrationBlocked)) throw error;
      const now = performance.now();
      if (now >= deadline) throw new MigrationRefused(`${error.message}: end that session, or migrate later.`);
      const pauseMs = Math.min(MAX_PAUSE_S, 2 ** attempt) * (750 + Math.random() * 250); // nodes that start together must not retry together
      const next = Math.min(now + pauseMs, deadline);
      options.log?.(`${error.message}; rolled back, next try in ${((next - now) / 1_000).toFixed(1)} s`);
      while (performance.now() < next && isWanted()) await delay(LOOK_EVERY_MS);
      if (!isWanted()) return false;
    }
  }
}

/**
 * Migrates a database to the newest schema; creates it if it is missing and the role may do so.
 * @throws MigrationRefused, before anything is changed; MigrationBlocked
 */
export async function migrate({ url, directory, log = () => undefined }: MigrationOptions): Promise<void> {
  const client = await connectOrCreate(url, log);
  let watch: LockWatch | undefined;
  try {
    const session = await sessionOf(client, () => connect(url));
    if (session === undefined) throw new MigrationRefused(sharesSessions(client.database));
    watch = new LockWatch(session, () => connect(url));
    // Migrations may take long; only waits are bounded.
    await client.query(`set statement_timeout = 0; set lock_timeout = ${ADVISORY_LOCK_TIMEOUT_MS}`);
    await client.query("select pg_advisory_lock($1)", [ADVISORY_LOCK]);
    await client.query(`set lock_timeout = ${LOCK_TIMEOUT_MS}`);
    await refuseFirstVersion(client);
    await client.query(
      "create table if not exists schema_migrations (name text primary key, checksum text not null, applied_at timestamptz not null default now())",
    );
    const files = await readMigrations(directory);
    const applied = await readApplied(client);
    refuseEdited(applied, files);
    await findExtensions(
      client,
      files.filter(({ name }) => !applied.has(name)),
    );
    await umzug(client, files, applied, log).up();
  } catch (error) {
    if (watch === undefined || !(isLockTimeout(error) || isRolledBack(error))) throw explainPrivilege(error, client);
    throw new MigrationBlocked(`the migration of ${client.database ?? ""} waits for ${await watch.end()}`, { cause: error });
  } finally {
    await watch?.end();
    await client.end(); // this also releases the session's advisory lock
  }
}

const sharesSessions = (database = ""): string =>
  `the URL of ${database} leads to a pooler whose clients share sessions (PgBouncer in transaction or statement mode): set pool_mode = session for this database (docs/operations.md, "PgBouncer").`;

/** Refuses a database of version 0.1.0, whose table of migrations had no checksums, or one with another tool's table of that name. */
async function refuseFirstVersion(client: Client): Promise<void> {
  const { rows } = await client.query<{ database: string; columns: string[] }>(
    `select current_database() as database, array_agg(attname::text) as columns from pg_attribute
     where attrelid = to_regclass('schema_migrations') and attnum > 0 and not attisdropped`,
  );
  const [{ database, columns } = { database: "", columns: null }] = rows;
  if (columns === null || columns.includes("checksum")) return;
  throw new MigrationRefused(
    columns.includes("applied_at")
      ? `${database} was made by version 0.1.0, whose ids can't be carried over: start with an empty database (docs/operations.md, "Upgrades"). Drop it, or with the embedded PostgreSQL delete its data directory (.data).`
      : `${database} has a table schema_migrations that is not ours: give the service a database of its own.`,
  );
}

/** The checksums of the applied migrations, by name. */
async function readApplied(client: Client): Promise<ReadonlyMap<string, string>> {
  const { rows } = await client.query<{ name: string; checksum: string }>("select name, checksum from schema_migrations");
  return new Map(rows.map(({ name, checksum }) => [name, checksum]));
}

/** Refuses edited files. Migrations without a file here are fine: nodes of two versions run side by side during a rolling upgrade. */
function refuseEdited(applied: ReadonlyMap<string, string>, files: readonly Migration[]): void {
  const edited = files.find(({ name, checksum }) => (applied.get(name) ?? checksum) !== checksum);
  if (edited !== undefined)
    throw new MigrationRefused(
      `${edited.name} is not the file that was applied to this database: migrations are never edited once they are released. Restore the file, and put the change into a new one.`,
    );
}

function umzug(client: Client, files: readonly Migration[], applied: ReadonlyMap<string, string>, log: (line: string) => void): Umzug {
  return new Umzug({
    logger: undefined,
    storage: {
      executed: () => Promise.resolve([...applied.keys()]),
      logMigration: () => Promise.resolve(), // written with the migration itself, below
      unlogMigration: () => Promise.reject(new Error("migrations only go forward: write a new one")),
    },
    migrations: files.map(({ name, sql, checksum }) => ({
      name,
      up: async () => {
        try {
          // In one transaction: a node that dies in between leaves either both or neither.
          await client.query(`begin; ${sql}`);
          await client.query("insert into schema_migrations (name, checksum) values ($1, $2)", [name, checksum]);
          await client.query("commit");
        } catch (error) {
          await client.query("rollback").catch(() => undefined /* the connection is lost, and the server rolls back on its own */);
          throw error;
        }
        log(`applied migration ${name}`);
      },
    })),
  });
}

interface Migration {
  name: string;
  sql: string;
  /** SHA-256. */
  checksum: string;
}

async function readMigrations(directory: string): Promise<Migration[]> {
  const names = (await readdir(directory)).filter((file) => /^\d+.*\.sql$/.test(file)).sort();
  return Promise.all(
    names.map(async (name) => {
      const sql = (await readFile(path.join(directory, name), "utf8")).replaceAll("\r\n", "\n"); // Git may check files out with CRLF on Windows
      return { name, sql, checksum: createHash("sha256").update(sql).digest("hex") };
    }),
  );
}

const connect = async (url: string): Promise<Client> => {
  const client = new (clientOf(url))({
    connectionString: serversOf(url)[0],
    connectionTimeoutMillis: 5_000,
    application_name: "migrations",
  });
  client.on("error", () => undefined); // a lost connection already fails the current statement
  await client.connect();
  return client;
};

const MISSING_DATABASE = "3D000";
const NO_SUCH_LOGIN = "28P01";
/** Of an attempt to create it: no such privilege, or no access to the database postgres, by privilege or pg_hba.conf, or no such database. */
const NOT_CREATED = [NO_PRIVILEGE, "28000", MISSING_DATABASE];
const DUPLICATE_DATABASE = ["42P04", "23505"];

/** An older volume, or a server set up by hand, may lack the database: init scripts run on an empty volume only. */
async function connectOrCreate(url: string, log: (line: string) => void): Promise<Client> {
  const target = new Client(serversOf(url)[0]); // only parses the URL
  try {
    return await connect(url);
  } catch (error) {
    if (sqlState(error) === NO_SUCH_LOGIN) {
      throw new Error("the role in the database URL does not exist, or the password is wrong; with compose see .env.example", {
        cause: error,
      });
    }
    if (sqlState(error) !== MISSING_DATABASE) throw explainPrivilege(error, target);
  }
  const { user = "", database: name = "" } = target;
  let admin: Client | undefined;
  try {
    admin = await connect(withDatabase(url, "postgres")); // fails for a role that is confined to its own database
    await admin.query(`create database ${escapeIdentifier(name)}`);
    log(`created database ${name}`);
  } catch (error) {
    if (NOT_CREATED.includes(sqlState(error) ?? "")) {
      throw new Error(
        `database "${name}" is missing and this role can't create it (${reasonOf(error)}): run, as a superuser, create database ${escapeIdentifier(name)} owner ${escapeIdentifier(user)}`,
        { cause: error },
      );
    }
    if (!DUPLICATE_DATABASE.includes(sqlState(error) ?? "")) throw error; // another node was faster
  } finally {
    await admin?.end();
  }
  return connect(url);
}
