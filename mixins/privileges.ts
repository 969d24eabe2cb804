import { escapeIdentifier, type Client } from "pg";
import { databaseError } from "./sql-state";

/*
 * A role of a managed PostgreSQL has few privileges, and extensions are often installed in a schema of their own.
 */

type Session = Pick<Client, "user" | "database">;

export const NO_PRIVILEGE = "42501";

/** PostgreSQL's messages, and what grants the privilege. Messages in other languages are only quoted. */
const GRANTS: readonly (readonly [RegExp, (name: string, role: string) => string])[] = [
  [/^permission denied for database "?(.+?)"?$/, (name, role) => `grant connect on database ${name} to ${role}`],
  [/^permission denied for schema "?(.+?)"?$/, (name, role) => `grant usage, create on schema ${name} to ${role}`],
  [/^permission denied to create extension "?(.+?)"?$/, (name) => `create extension ${name}`],
];

const lacking = ({ user = "", database = "" }: Session, reason: string, statement: string | undefined, cause?: unknown): Error =>
  new Error(
    `the role ${user} lacks a privilege in the database ${database} (${reason}): ` +
      (statement === undefined ? "make it the owner of its tables and functions" : `run, as a superuser in that database, ${statement}`),
    { cause },
  );

/** For an error that means a missing privilege, one that names the grant; any other error itself. */
export function explainPrivilege(error: unknown, session: Session): unknown {
  const found = databaseError(error);
  if (found?.code !== NO_PRIVILEGE) return error;
  for (const [message, grant] of GRANTS) {
    const name = message.exec(found.message)?.[1];
    if (name !== undefined)
      return lacking(session, found.message, grant(escapeIdentifier(name), escapeIdentifier(session.user ?? "")), error);
  }
  return lacking(session, found.message, undefined, error);
}

/**
 * Lets a session find the extensions that these migrations create unless they exist, in whichever schema they were installed. Needed only
 * by `create index`, which names the extension's operator class without a schema.
 * @throws an error that names the missing grant, if the role has no access to that schema
 */
export async function findExtensions(client: Client, migrations: readonly { sql: string }[]): Promise<void> {
  const names = migrations.flatMap(({ sql }) => [...sql.matchAll(/create extension if not exists (\w+)/gi)].map(([, name = ""]) => name));
  if (names.length === 0) return;
  const { rows } = await client.query<{ extension: string; schema: string; usable: boolean }>(
    `select extname::text as extension, nspname::text as schema, has_schema_privilege(n.oid, 'usage') as usable
     from pg_extension join pg_namespace n on n.oid = extnamespace where extname::text = any($1)`,
    [names],
  );
  if (rows.length === 0) return;
  for (const { extension, schema, usable } of rows) {
    if (usable) continue;
    const grant = `grant usage on schema ${escapeIdentifier(schema)} to ${escapeIdentifier(client.user ?? "")}`;
    throw lacking(client, `no access to schema ${schema}, which contains the extension ${extension}`, grant);
  }
  // Behind the others, so that new tables are created where they were before; and not at all if the path has no schema to create them in.
  const schemas = rows.map(({ schema }) => escapeIdentifier(schema)).join(", ");
  await client.query(
    "select set_config('search_path', concat_ws(', ', current_setting('search_path'), $1::text), false) where current_schema() is not null",
    [schemas],
  );
}
