/** What a database error means for us, by its SQLSTATE (PostgreSQL manual, appendix A). */

/**
 * - `data`: values of one request, or of one outbox row, break a rule of the database. Only this counts as a refusal of the row. The
 *   request gets INTERNAL_ERROR, unless its store expects the very code: our contracts let through what the database does not take.
 * - `transient`: nothing is wrong with the request. It gets SERVICE_UNAVAILABLE, an outbox row is published again, and both
 *   succeed once the database is right again.
 * - `ours`: a statement that can't work. INTERNAL_ERROR, logged; an outbox row waits until the bug is mended.
 */
export type Kind = "data" | "transient" | "ours";

export interface Meaning {
  readonly kind: Kind;
  /** The connection is of no more use: its session has ended, writes nothing, or is not in the state that we believe. */
  readonly drops?: true;
  /** The whole transaction was surely rolled back, and may succeed when it is done again at once. */
  readonly isRolledBack?: true;
  /** Transient, but perhaps for one item of a batch alone: the others must not wait for it. */
  readonly mayBeOfOne?: true;
  /** The server refuses to run a prepared statement, and has done nothing: the same text runs unprepared. */
  readonly isStatementLost?: true;
}

const CACHED_PLAN = "0A000, cached plan";

/** By code, else by its first three characters, else by its class. See docs/decisions/19-sqlstates.md for the reasons. */
export const MEANINGS: Readonly<Record<string, Meaning>> = {
  "00": { kind: "ours" }, // success: never an error
  "01": { kind: "ours" }, // a warning: never an error
  "02": { kind: "ours" }, // no data
  "03": { kind: "ours" }, // statement not yet complete
  "08": { kind: "transient", drops: true }, // connection exception; all that PgBouncer says by itself
  "09": { kind: "ours" }, // triggered action exception
  "0A": { kind: "ours" }, // feature not supported
  // The result of a prepared statement has other columns since a migration.
  [CACHED_PLAN]: { kind: "transient", drops: true, isStatementLost: true },
  "0B": { kind: "ours" }, // invalid transaction initiation
  "0F": { kind: "ours" }, // locator exception
  "0L": { kind: "ours" }, // invalid grantor
  "0P": { kind: "ours" }, // invalid role
  "0Z": { kind: "ours" }, // diagnostics exception
  "10": { kind: "ours" }, // XQuery
  "20": { kind: "ours" }, // case not found
  "21": { kind: "ours" }, // cardinality violation
  "22": { kind: "data" }, // data exception
  "23": { kind: "data" }, // integrity constraint violation
  "24": { kind: "ours" }, // invalid cursor state
  // Invalid transaction state: whoever is wrong about the session, it must not go on with that.
  "25": { kind: "ours", drops: true },
  "25006": { kind: "transient", drops: true }, // read-only: a hot standby, or default_transaction_read_only when it connected
  "25P02": { kind: "transient", drops: true }, // its transaction has failed before
  "25P03": { kind: "transient", drops: true }, // idle in transaction for too long: the session has ended
  "25P04": { kind: "transient", drops: true }, // transaction_timeout: the same
  // A prepared statement that the session does not have, or has already: somebody else uses it, or has reset it.
  "26": { kind: "transient", drops: true, isStatementLost: true },
  "27": { kind: "ours" }, // triggered data change violation
  "28": { kind: "transient" }, // this node may not log in, until somebody mends it
  "2B": { kind: "ours" }, // dependent privileges
  "2D": { kind: "ours" }, // invalid transaction termination
  "2F": { kind: "ours" }, // SQL routine exception
  "34": { kind: "ours" }, // invalid cursor name
  "38": { kind: "ours" }, // external routine exception
  "39": { kind: "ours" }, // external routine invocation
  "3B": { kind: "ours" }, // savepoint exception
  "3D": { kind: "transient" }, // the database is not there, until somebody mends it
  "3F": { kind: "transient" }, // the schema is not there: as 42P01
  "40": { kind: "transient", isRolledBack: true }, // transaction rollback: serialization failure, deadlock
  "40003": { kind: "transient", drops: true }, // completion unknown: that is no rollback
  "42": { kind: "ours" }, // syntax error or access rule violation
  // The node has migrated this database before it was ready. So what is missing now is being restored, or was by an operator.
  "42P01": { kind: "transient" }, // table
  "42703": { kind: "transient" }, // column
  "42704": { kind: "transient" }, // other object
  "42883": { kind: "transient" }, // function
  "42501": { kind: "transient" }, // privilege: as 28
  "42P05": { kind: "transient", drops: true, isStatementLost: true }, // duplicate prepared statement: as 26
  "44": { kind: "ours" }, // with check option
  "53": { kind: "transient" }, // insufficient resources: disk, memory, connections
  "54": { kind: "ours" }, // program limit exceeded
  "55": { kind: "transient" }, // object not in prerequisite state, lock not available
  "57": { kind: "transient" }, // operator intervention: query canceled
  "57P": { kind: "transient", drops: true }, // shutdown, crash, start, database dropped, session idle for too long
  "58": { kind: "transient", mayBeOfOne: true }, // system error: I/O, a missing file
  "72": { kind: "transient" }, // snapshot too old, up to version 16
  F0: { kind: "transient" }, // configuration file
  HV: { kind: "transient" }, // foreign data wrapper: of another server
  P0: { kind: "ours" }, // raised by PL/pgSQL
  // Internal error, corrupted data or index: nobody's request is wrong. Another session may not have what this one has cached.
  XX: { kind: "transient", drops: true, mayBeOfOne: true },
};

/** What is neither in the table nor in PostgreSQL's list must never park an order. */
const UNKNOWN: Meaning = { kind: "transient", mayBeOfOne: true };

interface DatabaseError extends Error {
  code: string;
  /** The function of the server that has raised it. Unlike the message it is in no language. */
  routine?: unknown;
  where?: unknown;
}

function link(error: Error): unknown {
  // Sequelize wraps the driver's error
  return "original" in error ? error.original : error.cause;
}

/** The database's own error, wherever in the chain of causes it stands. Its code has a digit, unlike EPIPE. */
function databaseError(error: unknown): DatabaseError | undefined {
  for (let e = error, depth = 0; e instanceof Error && depth < 5; e = link(e), depth++) {
    if (hasState(e)) return e;
  }
  return undefined;
}

const hasState = (error: Error): error is DatabaseError =>
  "code" in error && typeof error.code === "string" && /^(?=.*\d)[0-9A-Z]{5}$/.test(error.code);

/** The five characters; undefined where the error is not of the database. */
export const sqlState = (error: unknown): string | undefined => databaseError(error)?.code;

/** undefined where the error is not of the database. */
export function meaningOf(error: unknown): Meaning | undefined {
  const found = databaseError(error);
  if (found === undefined) return undefined;
  const { code, routine } = found;
  const state = code === "0A000" && routine === "RevalidateCachedQuery" ? CACHED_PLAN : code;
  return MEANINGS[state] ?? MEANINGS[code.slice(0, 3)] ?? MEANINGS[code.slice(0, 2)] ?? UNKNOWN;
}

/** The transaction was surely rolled back and may be done again: serialization failure or deadlock. */
export const isRolledBack = (error: unknown): boolean => meaningOf(error)?.isRolledBack ?? false;

/** A prepared statement could not be run on this connection, and nothing was done: it may be run unprepared. */
export const isStatementLost = (error: unknown): boolean => meaningOf(error)?.isStatementLost ?? false;

export const isUniqueViolation = (error: unknown): boolean => sqlState(error) === "23505";

/**
 * Whether the connection on which an error came is of no more use: it is no response of the server, so that nobody knows in which state
 * the connection is; or the table says so.
 */
export function endsConnection(error: unknown): boolean {
  const meaning = meaningOf(error);
  return meaning === undefined || meaning.drops === true;
}

/** A row, a unique key or a table was locked by someone for longer than lock_timeout. */
export const isLockTimeout = (error: unknown): boolean => sqlState(error) === "55P03";

/** The statement took longer than statement_timeout, or somebody has canceled it. */
export const isCanceled = (error: unknown): boolean => sqlState(error) === "57014";

/**
 * An insert waited for longer than lock_timeout for another one with its unique key. Only then does the error name a place,
 * the index's tuple; it has none where a migration holds the whole table.
 */
export const isKeyLockTimeout = (error: unknown): boolean => isLockTimeout(error) && databaseError(error)?.where !== undefined;

const CONNECTION_LOST =
  /^(ECONN|EPIPE|ETIMEDOUT|EHOSTUNREACH|ENOTFOUND|EAI_AGAIN)|Connection terminated|timeout exceeded when trying to connect|not queryable|Query read timeout|connection manager was closed/;

/** The database can't do it now, and nothing is wrong with what it was asked: any transient error, or the connection was lost; or this node is about to stop. */
export function isDatabaseAway(error: unknown): boolean {
  if (meaningOf(error)?.kind === "transient") return true;
  for (let e = error, depth = 0; e instanceof Error && depth < 5; e = link(e), depth++) {
    if (
      e.name.startsWith("SequelizeConnection") ||
      CONNECTION_LOST.test("code" in e ? String(e.code) : "") ||
      CONNECTION_LOST.test(e.message)
    )
      return true;
  }
  return false;
}

/** Whether one item of a batch may be why the whole has failed: then each is done by itself. */
export const mayBeOfOne = (error: unknown): boolean => !isDatabaseAway(error) || meaningOf(error)?.mayBeOfOne === true;

/** Counts against the outbox row whose handling, alone, has failed with it: its data, or an exception that is not of the database. */
export const isRefusal = (error: unknown): boolean => (meaningOf(error)?.kind ?? "data") === "data" && !isDatabaseAway(error);
