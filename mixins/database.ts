import { setTimeout as delay } from "node:timers/promises";
import type { Client, QueryResultRow } from "pg";
import { types } from "pg";
import type { Sequelize } from "sequelize";
import { tooLate } from "../broker/errors";
import { remainingMs } from "../broker/request";
import { isRolledBack, isStatementLost, sqlState } from "./sql-state";

// pg returns bigint as a string by default; our cents, counts and row ids stay below 2^53.
types.setTypeParser(types.builtins.INT8, Number);

/** Runs one statement with bound values; `Row` must match its column list. */
export type Query = <Row extends QueryResultRow>(text: string, values?: readonly unknown[]) => Promise<Row[]>;

/** Reads with bound values: `query` prepares texts that never vary, `adhoc` plans for the given values. */
export interface Reader {
  readonly query: Query;
  readonly adhoc: Query;
}

const MAX_ATTEMPTS = 5;
const names = new Map<string, string>();

/** The name of a prepared statement: it is parsed and planned once per connection (3× less work for the database). */
export function prepared(text: string): { name?: string } {
  let name = names.get(text);
  if (name === undefined) names.set(text, (name = `s${names.size + 1}`));
  return { name };
}

const unprepared: typeof prepared = () => ({});

/** The part of Sequelize's pool that is read here; its types hide it. */
interface Pool {
  /** Connections in use, and callers waiting for one. */
  readonly using: number;
  readonly waiting: number;
  readonly maxSize: number;
}

/** SQL on the pool that it shares with the service's moleculer-db adapter. */
export class Database implements Reader {
  constructor(private readonly sequelize: Sequelize) {}

  get pool(): Pool {
    return (this.sequelize.connectionManager as unknown as { pool: Pool }).pool;
  }

  /** One statement, prepared: for texts that never vary. */
  query: Query = (text, values) => this.connected((client) => runPrepared(client, text, values));

  /** One statement composed of fixed fragments, planned for the given values. */
  adhoc: Query = (text, values) => this.connected((client) => run(client, text, values));

  /**
   * Runs `work` atomically, READ COMMITTED. After a deadlock or serialization failure, which has certainly been rolled back, all of it is
   * retried, up to 5 attempts in total; so `work` must have no effect outside the database. If a prepared statement could not be run, the
   * retry uses none, since they may fail on other connections too.
   */
  async transaction<T>(work: (query: Query) => Promise<T>): Promise<T> {
    let nameOf = prepared;
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.connected((client) => once(client, work, nameOf));
      } catch (error) {
        if (attempt === MAX_ATTEMPTS) throw error;
        if (isStatementLost(error)) nameOf = unprepared;
        else if (isRolledBack(error))
          await delay(Math.random() * 10 * 2 ** attempt); // full jitter
        else throw error;
      }
    }
  }

  /** Runs reads on one snapshot of the database, each within `timeout` ms. */
  snapshot<T>(timeout: number, work: (query: Query) => Promise<T>): Promise<T> {
    return this.connected((client) =>
      once(client, async () => {
        await run(client, "set transaction isolation level repeatable read, read only");
        await run(client, `set local statement_timeout = ${timeout}`);
        await run(client, "set local enable_seqscan = on"); // these may read whole tables
        return work((text, values) => run(client, text, values, { query_timeout: timeout }));
      }),
    );
  }

  private async connected<T>(work: (client: Client) => Promise<T>): Promise<T> {
    const connection = await this.sequelize.connectionManager.getConnection({ type: "write" });
    try {
      if (remainingMs() <= 0) throw tooLate(); // its deadline passed while it waited for the connection
      return await work(connection as Client); // the postgres dialect pools these
    } finally {
      this.sequelize.connectionManager.releaseConnection(connection);
    }
  }
}

async function run<Row extends QueryResultRow>(
  client: Client,
  text: string,
  values: readonly unknown[] = [],
  how: { name?: string; query_timeout?: number } = {},
): Promise<Row[]> {
  try {
    const result = await client.query<Row>({ text, values: [...values], ...how });
    return result.rows;
  } catch (error) {
    // No error of the server, so the connection's state is unknown: end it, and the pool drops it. For errors of the server see session.ts.
    if (sqlState(error) === undefined) client.end().catch(() => undefined /* it is lost already */);
    throw error;
  }
}

/** Runs a prepared statement; unprepared if the server has lost it, or its plan, and so has executed nothing. */
async function runPrepared<Row extends QueryResultRow>(client: Client, text: string, values?: readonly unknown[]): Promise<Row[]> {
  try {
    return await run(client, text, values, prepared(text));
  } catch (error) {
    if (!isStatementLost(error)) throw error;
    return run(client, text, values);
  }
}

async function once<T>(client: Client, work: (query: Query) => Promise<T>, nameOf = prepared): Promise<T> {
  await run(client, "begin");
  try {
    const result = await work((text, values) => run(client, text, values, nameOf(text)));
    await run(client, "commit");
    return result;
  } catch (error) {
    await run(client, "rollback").catch(() => undefined /* the connection is lost, and the server rolls back on its own */);
    throw error;
  }
}
