import { setTimeout as delay } from "node:timers/promises";
import type { Client, QueryResultRow } from "pg";
import { types } from "pg";
import type { Sequelize } from "sequelize";
import { tooLate } from "../broker/errors";
import { remainingMs } from "../broker/request";
import { isRolledBack, isStatementLost, sqlState } from "./sql-state";

// bigint comes as a string by default; our cents, counts and ids of rows stay below 2^53.
types.setTypeParser(types.builtins.INT8, Number);

/** Runs one bound statement; `Row` is what its column list promises. */
export type Query = <Row extends QueryResultRow>(text: string, values?: readonly unknown[]) => Promise<Row[]>;

/** Bound reads: prepared, for texts that never vary, or planned for these very values. */
export interface Reader {
  readonly query: Query;
  readonly adhoc: Query;
}

const REPEATS = 5;
const names = new Map<string, string>();

/** A statement's name on each connection: it is parsed and planned once there (3× less work for the database). */
export function prepared(text: string): { name?: string } {
  let name = names.get(text);
  if (name === undefined) names.set(text, (name = `s${names.size + 1}`));
  return { name };
}

const unprepared: typeof prepared = () => ({});

/** The part of Sequelize's pool that is looked at; its types hide it. */
interface Pool {
  /** Connections in use, and those who wait for one. */
  readonly using: number;
  readonly waiting: number;
  readonly maxSize: number;
}

/** SQL on the pool that the service's moleculer-db adapter uses too. */
export class Database implements Reader {
  constructor(private readonly sequelize: Sequelize) {}

  get pool(): Pool {
    return (this.sequelize.connectionManager as unknown as { pool: Pool }).pool;
  }

  /** One statement, prepared: for texts that never vary. */
  query: Query = (text, values) => this.connected((client) => runPrepared(client, text, values));

  /** One statement put together from fixed fragments, planned for these very values. */
  adhoc: Query = (text, values) => this.connected((client) => run(client, text, values));

  /**
   * All of `work` or nothing, READ COMMITTED. After a deadlock or serialization failure, which surely rolled back,
   * the whole is done again, at most 5 times; so `work` must have no effect outside the database. So it is, without prepared statements,
   * where one of those could not be run: other connections may have the same.
   */
  async transaction<T>(work: (query: Query) => Promise<T>): Promise<T> {
    let nameOf = prepared;
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.connected((client) => once(client, work, nameOf));
      } catch (error) {
        if (attempt === REPEATS) throw error;
        if (isStatementLost(error)) nameOf = unprepared;
        else if (isRolledBack(error))
          await delay(Math.random() * 10 * 2 ** attempt); // full jitter
        else throw error;
      }
    }
  }

  /** Reads that see one moment of the database, each of which may take `timeout` ms. */
  snapshot<T>(timeout: number, work: (query: Query) => Promise<T>): Promise<T> {
    return this.connected((client) =>
      once(client, async () => {
        await run(client, "set transaction isolation level repeatable read, read only");
        await run(client, `set local statement_timeout = ${timeout}`);
        await run(client, "set local enable_seqscan = on"); // these may read all
        return work((text, values) => run(client, text, values, { query_timeout: timeout }));
      }),
    );
  }

  private async connected<T>(work: (client: Client) => Promise<T>): Promise<T> {
    const connection = await this.sequelize.connectionManager.getConnection({ type: "write" });
    try {
      if (remainingMs() <= 0) throw tooLate(); // it has waited for the connection until nobody waits for it
      return await work(connection as Client); // what the postgres dialect pools
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
    // No response of the server: the pool drops an ended one. What the server says is heard where the session was opened.
    if (sqlState(error) === undefined) client.end().catch(() => undefined /* it is lost already */);
    throw error;
  }
}

/** Also where the server has lost the prepared statement, or its plan: then it has done nothing. */
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
    await run(client, "rollback").catch(() => undefined /* the connection is lost, and the server rolls back by itself */);
    throw error;
  }
}
