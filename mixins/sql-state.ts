/** The meaning of database errors, by their SQLSTATE (PostgreSQL manual, appendix A). */

/**
 * - `data`: values of one request, or of one outbox row, break a rule of the database. Of database errors, only these count as a refusal of
 *   the row. The request gets INTERNAL_ERROR unless its store handles the code: a contract that accepts what the database rejects is a bug.
 * - `transient`: nothing is wrong with the request. It gets SERVICE_UNAVAILABLE, an outbox row is republished, and both
 *   succeed once the database has recovered.
 * - `ours`: a statement that can't succeed. INTERNAL_ERROR, logged; an outbox row stays pending until the bug is fixed.
 */
type Kind = "data" | "transient" | "ours";

interface Meaning {
  readonly kind: Kind;
  /** The connection must not be reused: its session has ended, is read-only, or is not in the expected state. */
  readonly drops?: true;
  /** The whole transaction has certainly been rolled back, and may succeed if retried at once. */
  readonly isRolledBack?: true;
  /** Transient, but possibly for one item of a batch only: the others must not wait for it. */
  readonly retryIndividually?: true;
  /** The server could not run a prepared statement and has executed nothing: the same text can run unprepared. */
  readonly isStatementLost?: true;
}

const CACHED_PLAN = "0A000, cached plan";

/** Classes whose errors, apart from the codes below, are `ours`: syntax (42), unsupported features (0A), limits (54), PL/pgSQL (P0), … */
const OURS = "00 01 02 03 09 0A 0B 0F 0L 0P 0Z 10 20 21 24 27 2B 2D 2F 34 38 39 3B 42 44 54 P0";

/** By code, else by its first three characters, else by its class. For the reasons see docs/decisions/19-sqlstates.md. */
export const MEANINGS: Readonly<Record<string, Meaning>> = {
  ...Object.fromEntries(OURS.split(" ").map((one): [string, Meaning] => [one, { kind: "ours" }])),
  "08": { kind: "transient", drops: true }, // connection exception; all of PgBouncer's own errors
  // The columns of a prepared statement's result have changed in a migration.
  [CACHED_PLAN]: { kind: "transient", drops: true, isStatementLost: true },
  "22": { kind: "data" }, // data exception
  "23": { kind: "data" }, // integrity constraint violation
  // Invalid transaction state: client and server disagree about the session, so it must not be used further.
  "25": { kind: "ours", drops: true },
  "25006": { kind: "transient", drops: true }, // read-only: a hot standby, or default_transaction_read_only when it connected
  "25P02": { kind: "transient", drops: true }, // its transaction has already failed
  "25P03": { kind: "transient", drops: true }, // idle in transaction for too long: the session has ended
  "25P04": { kind: "transient", drops: true }, // transaction_timeout: the same
  // Invalid statement name: the session lacks a prepared statement, since another client uses the session or has reset it.
  "26": { kind: "transient", drops: true, isStatementLost: true },
  "28": { kind: "transient" }, // this node may not log in, until an operator fixes that
  "3D": { kind: "transient" }, // the database does not exist, until an operator fixes that
  "3F": { kind: "transient" }, // the schema does not exist: as 42P01
  "40": { kind: "transient", isRolledBack: true }, // transaction rollback: serialization failure, deadlock
  "40003": { kind: "transient", drops: true }, // completion unknown: it may not have been rolled back
  // The node migrated this database before it was ready. So whatever is missing now is being restored, or an operator has changed it.
  "42P01": { kind: "transient" }, // table
  "42703": { kind: "transient" }, // column
  "42704": { kind: "transient" }, // other object
  "42883": { kind: "transient" }, // function
  "42501": { kind: "transient" }, // privilege: as 28
  "42P05": { kind: "transient", drops: true, isStatementLost: true }, // duplicate prepared statement: as 26
  "53": { kind: "transient" }, // insufficient resources: disk, memory, connections
  "55": { kind: "transient" }, // object not in prerequisite state, lock not available
  "57": { kind: "transient" }, // operator intervention: query canceled
  "57P": { kind: "transient", drops: true }, // shutdown, crash, start, database dropped, session idle for too long
  "58": { kind: "transient", retryIndividually: true }, // system error: I/O, a missing file
  "72": { kind: "transient" }, // snapshot too old, up to version 16
  F0: { kind: "transient" }, // configuration file
  HV: { kind: "transient" }, // foreign data wrapper: an error of another server
  // Internal error, corrupted data or index: no fault of the request. This session may have cached something invalid, another may not.
  XX: { kind: "transient", drops: true, retryIndividually: true },
};

/** A code that is neither in the table nor in PostgreSQL's list must never park an order. */
const UNKNOWN: Meaning = { kind: "transient", retryIndividually: true };

interface DatabaseError extends Error {
  code: string;
  /** The server function that raised the error. Unlike the message, it is not translated. */
  routine?: unknown;
  where?: unknown;
}

function link(error: Error): unknown {
  // Sequelize wraps the driver's error.
  return "original" in error ? error.original : error.cause;
}

/** The database's own error, from anywhere in the chain of causes. Its code contains a digit, unlike EPIPE. */
export function databaseError(error: unknown): DatabaseError | undefined {
  for (let e = error, depth = 0; e instanceof Error && depth < 5; e = link(e), depth++) {
    if (hasState(e)) return e;
  }
  return undefined;
}

const hasState = (error: Error): error is DatabaseError =>
  "code" in error && typeof error.code === "string" && /^(?=.*\d)[0-9A-Z]{5}$/.test(error.code);

/** The five-character code; undefined if it is not a database error. */
export const sqlState = (error: unknown): string | undefined => databaseError(error)?.code;

/** @returns undefined if it is not a database error */
export function meaningOf(error: unknown): Meaning | undefined {
  const found = databaseError(error);
  if (found === undefined) return undefined;
  const { code, routine } = found;
  const state = code === "0A000" && routine === "RevalidateCachedQuery" ? CACHED_PLAN : code;
  return MEANINGS[state] ?? MEANINGS[code.slice(0, 3)] ?? MEANINGS[code.slice(0, 2)] ?? UNKNOWN;
}

/** The transaction has certainly been rolled back and may be retried: serialization failure or deadlock. */
export const isRolledBack = (error: unknown): boolean => meaningOf(error)?.isRolledBack ?? false;

/** A prepared statement could not be run on this connection, and nothing was executed: it may be run unprepared. */
export const isStatementLost = (error: unknown): boolean => meaningOf(error)?.isStatementLost ?? false;

export const isUniqueViolation = (error: unknown): boolean => sqlState(error) === "23505";

/**
 * Whether the connection that an error occurred on must not be reused: the error does not come from the server, so the connection's state
 * is unknown; or the table says so.
 */
export function endsConnection(error: unknown): boolean {
  const meaning = meaningOf(error);
  return meaning === undefined || meaning.drops === true;
}

/** A row, a unique key or a table was locked for longer than lock_timeout. */
export const isLockTimeout = (error: unknown): boolean => sqlState(error) === "55P03";

/** The statement took longer than statement_timeout, or was canceled. */
export const isCanceled = (error: unknown): boolean => sqlState(error) === "57014";

/**
 * An insert waited longer than lock_timeout for another one with the same unique key. Only then does the error have a context (`where`),
 * which names the index tuple. It has none if a migration has locked the whole table.
 */
export const isKeyLockTimeout = (error: unknown): boolean => isLockTimeout(error) && databaseError(error)?.where !== undefined;

const CONNECTION_LOST =
  /^(ECONN|EPIPE|ETIMEDOUT|EHOSTUNREACH|ENOTFOUND|EAI_AGAIN)|Connection terminated|timeout exceeded when trying to connect|not queryable|Query read timeout|connection manager was closed/;

/** The database is unavailable, and the statement is not at fault: a transient error, a lost connection, or this node is stopping. */
export function isDatabaseUnavailable(error: unknown): boolean {
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

/** Whether a single item may have made its batch fail. If so, each item is retried individually. */
export const shouldRetryIndividually = (error: unknown): boolean =>
  !isDatabaseUnavailable(error) || meaningOf(error)?.retryIndividually === true;

/** Whether an error in handling one outbox row is due to that row: its data, or an exception that is not from the database. */
export const isRefusal = (error: unknown): boolean => (meaningOf(error)?.kind ?? "data") === "data" && !isDatabaseUnavailable(error);
