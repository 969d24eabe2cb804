import type { Client, ClientBase } from "pg";
import { endsConnection } from "./sql-state";

/** Parameters of a session by their names in PostgreSQL; times in milliseconds. */
export type SessionSettings = Readonly<Record<string, string | number>>;

/** Sessions of a database that is read-only stay so when it is not any more. */
const READ_ONLY_LIFE_MS = 1_000;

/** A server that lags behind its primary, and would deny orders that were accepted. Transient, by the code of a read-only transaction. */
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
 * Makes a session of a new connection ours. Its parameters are set by a statement, since PgBouncer refuses most of them at start-up.
 * @returns whether it can only read, since the database or the role has that as its default
 * @throws HotStandby, or what the server says
 */
export async function openSession(client: ClientBase, settings: SessionSettings): Promise<{ isReadOnly: boolean }> {
  const values = [Object.keys(settings), Object.values(settings).map(String)];
  const { rows } = await client.query<{ is_standby: boolean; is_read_only: boolean }>(OPEN, values);
  if (rows[0]?.is_standby !== false) throw new HotStandby();
  return { isReadOnly: rows[0].is_read_only };
}

/** pg's client as Sequelize pools it: one with this mark is ended instead of being used again (`validate` of its postgres dialect). */
type Pooled = Client & { _invalid?: boolean };

/**
 * The same for a connection of Sequelize's pool, whoever uses it then, moleculer-db's adapter too: one on which an error came that makes it
 * useless is not used again.
 */
export async function openPooledSession(connection: unknown, settings: SessionSettings): Promise<void> {
  const client = connection as Pooled; // what the postgres dialect pools
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
