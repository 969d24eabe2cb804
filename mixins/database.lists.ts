import { Client, Pool, type ClientBase, type PoolClient, type PoolConfig, type QueryResultRow } from "pg";
import { problem, tooLate } from "../broker/errors";
import { remainingMs } from "../broker/request";
import { prepared, type Reader } from "./database";
import { openSession, type SessionSettings } from "./session";
import { endsConnection, isCanceled, isStatementLost } from "./sql-state";

/** Maximum number of lists and searches in progress per service per node: slow ones must leave the database's cores to other statements. */
export const LIST_CONNECTIONS = 3;
/**
 * Maximum number of lists that may be queued; one more is refused at once. At a thousand lists per second, a full queue is served in a
 * quarter of a second.
 */
const MAX_WAITING = 256;
/** Even after the longest wait, a list with two statements gets its result or refusal within the 2 s of a call. */
const WAIT_MS = 900;
const STATEMENT_TIMEOUT_MS = 500;
/** For a server that does not respond at all, so that its own statement timeout does not help. */
const QUERY_TIMEOUT_MS = 1_000;

/** The pool awaits `onConnect` and ends the connection if it fails, but its type declarations omit that. */
interface ListPoolConfig extends Omit<PoolConfig, "onConnect"> {
  onConnect: (client: ClientBase) => Promise<unknown>;
}

/**
 * The connections of lists and searches, which may be slow: stock, orders and single reads use other connections and never wait for
 * them. Reads only. A list that takes too long is refused with SERVICE_UNAVAILABLE.
 */
export class ListDatabase {
  private readonly connections: Pool;
  private closing: Promise<void> | undefined;

  /** @param client the class of the connections */
  constructor(config: PoolConfig, settings: SessionSettings = {}, client = Client) {
    const options: ListPoolConfig = {
      ...config,
      Client: client,
      max: LIST_CONNECTIONS,
      connectionTimeoutMillis: WAIT_MS,
      idleTimeoutMillis: 30_000,
      query_timeout: QUERY_TIMEOUT_MS,
      onConnect: (client) => openSession(client, { ...settings, statement_timeout: STATEMENT_TIMEOUT_MS }),
    };
    this.connections = new Pool(options);
    // A connection lost while idle, or between two statements, fails its next statement. The event itself must not crash the process.
    this.connections.on("error", () => undefined);
    this.connections.on("connect", (client) => client.on("error", () => undefined));
  }

  get pool(): { using: number; waiting: number; maxSize: number } {
    const { totalCount, idleCount, waitingCount } = this.connections;
    return { using: totalCount - idleCount, waiting: waitingCount, maxSize: LIST_CONNECTIONS };
  }

  /** Runs all statements of one list on one connection. */
  async read<T>(work: (reader: Reader) => Promise<T>): Promise<T> {
    const client = await this.connect();
    let isLost = false;
    const run = async <Row extends QueryResultRow>(
      text: string,
      values: readonly unknown[] = [],
      name: { name?: string } = {},
    ): Promise<Row[]> => {
      try {
        return (await client.query<Row>({ text, values: [...values], ...name })).rows;
      } catch (error) {
        isLost ||= endsConnection(error);
        // The server has lost the prepared statement, or its plan, and has executed nothing.
        if (isStatementLost(error) && name.name !== undefined) return run<Row>(text, values);
        throw isCanceled(error) ? tooSlow() : error;
      }
    };
    try {
      if (remainingMs() <= 0) throw tooLate();
      return await work({ query: (text, values) => run(text, values, prepared(text)), adhoc: (text, values) => run(text, values) });
    } finally {
      client.release(isLost);
    }
  }

  /** May be called more than once: the console stops its node when it quits, and again when its input ends. */
  close(): Promise<void> {
    return (this.closing ??= this.connections.end());
  }

  private async connect(): Promise<PoolClient> {
    if (this.connections.waitingCount >= MAX_WAITING) throw busy();
    try {
      return await this.connections.connect();
    } catch (error) {
      const { using, maxSize } = this.pool;
      throw using === maxSize ? busy() : unavailable(error);
    }
  }
}

const tooSlow = () => problem("SERVICE_UNAVAILABLE", "this list took too long");
/** For any error of a new connection, such as that the database does not exist. */
const unavailable = (cause: unknown) => problem("SERVICE_UNAVAILABLE", "the database is unavailable", { cause });
const busy = () => problem("SERVICE_UNAVAILABLE", "too many lists are in progress");
