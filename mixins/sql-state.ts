/** What a database error means for us, by its SQLSTATE (PostgreSQL manual, appendix A). */

function link(error: Error): unknown {
  // Sequelize wraps the driver's error
  return "original" in error ? error.original : error.cause;
}

/** The database's own error, wherever in the chain of causes it stands. Its code has a digit, unlike EPIPE. */
function databaseError(error: unknown): (Error & { code: string }) | undefined {
  for (let e = error, depth = 0; e instanceof Error && depth < 5; e = link(e), depth++) {
    if (hasState(e)) return e;
  }
  return undefined;
}

const hasState = (error: Error): error is Error & { code: string } =>
  "code" in error && typeof error.code === "string" && /^(?=.*\d)[0-9A-Z]{5}$/.test(error.code);

/** The five characters; undefined where the error is not of the database. */
export const sqlState = (error: unknown): string | undefined => databaseError(error)?.code;

const inClass = (error: unknown, ...classes: string[]): boolean => classes.includes(sqlState(error)?.slice(0, 2) ?? "");

/** The transaction was surely rolled back and may be done again: serialization failure or deadlock. */
export const isRolledBack = (error: unknown): boolean => inClass(error, "40");

export const isUniqueViolation = (error: unknown): boolean => sqlState(error) === "23505";

/**
 * Whether the connection on which an error came is of no more use: it is no answer of the server, so that nobody knows in which state
 * the connection is; or the server says that it ends it.
 */
export const endsConnection = (error: unknown): boolean => sqlState(error) === undefined || /^(08|57P)/.test(sqlState(error) ?? "");

/** A row, a unique key or a table was locked by someone for longer than lock_timeout. */
export const isLockTimeout = (error: unknown): boolean => sqlState(error) === "55P03";

/**
 * An insert waited for longer than lock_timeout for another one with its unique key. Only then does the error name a place,
 * the index's tuple; it has none where a migration holds the whole table.
 */
export function isKeyLockTimeout(error: unknown): boolean {
  const found = databaseError(error);
  return found?.code === "55P03" && "where" in found && found.where !== undefined;
}

const CONNECTION_LOST =
  /^(ECONN|EPIPE|ETIMEDOUT|EHOSTUNREACH|ENOTFOUND|EAI_AGAIN)|Connection terminated|timeout exceeded when trying to connect|not queryable|Query read timeout|connection manager was closed/;

/** The database can't answer now: away, starting or stopping, out of connections, or too slow; or this node is about to stop. */
export function isDatabaseAway(error: unknown): boolean {
  // 28 and 3D: this node may not log in, or the database is not there, until somebody mends it.
  if (inClass(error, "08", "28", "3D", "40", "53", "55", "57")) return true;
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
