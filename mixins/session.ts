import type { Client, ClientBase } from "pg";
import { endsConnection } from "./sql-state";

/** Parameters of a session by their names in PostgreSQL; times in milliseconds. */
export type SessionSettings = Readonly<Record<string, string | number>>;

/** Sessions opened while a database is read-only stay read-only when it no longer is, so they are not kept for long. */
const READ_ONLY_LIFE_MS = 1_000;

/** A standby may lag behind its primary and deny that accepted orders exist. The code is that of a read-only transaction: transient. */
export class HotStandby extends Error {
  readonly code = "25006";
  constructor() {
    super("the server is a hot standby, which only reads");
  }
}

const OPEN = `
  select pg_is_in_recovery() as is_standby, current_setting('transaction_read_only')::boolean as is_read_only,
    (select count(set_config(name, value, false)) from unnest($1::text[], $2::text[]) as s (name, value)) as settings`;

/**
 * Prepares the session of a new connection. Its parameters are set by a statement, since PgBouncer refuses most of them at start-up.
 * @returns whether the session is read-only, as the default of the database or the role
 * @throws HotStandby, or the server's error
 */
export async function openSession(client: ClientBase, settings: SessionSettings): Promise<{ isReadOnly: boolean }> {
  const values = [Object.keys(settings), Object.values(settings).map(String)];
  const { rows } = await client.query<{ is_standby: boolean; is_read_only: boolean }>(OPEN, values);
  if (rows[0]?.is_standby !== false) throw new HotStandby();
  return { isReadOnly: rows[0].is_read_only };
}

/** pg's client as Sequelize pools it: with this flag it is ended instead of reused (`validate` of the postgres dialect). */
type Pooled = Client & { _invalid?: boolean };

/**
 * As `openSession`, for a connection of Sequelize's pool. After an error that makes the connection useless it is not used again, no matter
 * who used it, moleculer-db's adapter included.
 */
export async function openPooledSession(connection: unknown, settings: SessionSettings): Promise<void> {
  const client = connection as Pooled; // the postgres dialect pools these
  const retire = (): void => {
    client._invalid = true;
  };
  client.connection.on("errorMessage", (error: Error) => {
    if (endsConnection(error)) retire();
  });
  const { isReadOnly } = await openSession(client, settings).catch((error: unknown) => {
    client.end().catch(() => undefined /* it is lost already */);
    throw error;
  });
  if (isReadOnly) setTimeout(retire, READ_ONLY_LIFE_MS).unref();
}
