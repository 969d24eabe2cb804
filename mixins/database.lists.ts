import { Client, Pool, type ClientBase, type PoolClient, type PoolConfig, type QueryResultRow } from "pg";
import { problem, tooLate } from "../broker/errors";
import { remainingMs } from "../broker/request";
import { prepared, type Reader } from "./database";
import { openSession, type SessionSettings } from "./session";
import { endsConnection, isCanceled, isStatementLost } from "./sql-state";

/** Most lists and searches of one service that run at a time on one node: slow ones must leave the database's cores to others. */
export const LIST_CONNECTIONS = 2;
/** One more is refused at once: at a thousand lists a second, what waits is served in a quarter of one. */
const MAX_WAITING = 256;
/** With two statements, a list that waits the longest has its result or its refusal within the 2 s of a call. */
const WAIT_MS = 900;
const STATEMENT_TIMEOUT_MS = 500;
/** For a server that does not even say that a statement has timed out. */
const QUERY_TIMEOUT_MS = 1_000;

/** The pool waits for it, and ends the connection where it fails; its declarations forget that. */
interface ListPoolConfig extends Omit<PoolConfig, "onConnect"> {
  onConnect: (client: ClientBase) => Promise<unknown>;
}

/**
 * The connections of lists and searches, which may be slow: stock, orders and single reads have others and never wait for
 * them. Reads alone; what is too slow is refused with SERVICE_UNAVAILABLE.
 */
export class ListDatabase {
  private readonly connections: Pool;
  private closing: Promise<void> | undefined;

  /** @param client the class of its connections */
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
    // A connection that is lost while it is idle, or held between two statements, fails whoever uses it next: nothing else must.
    this.connections.on("error", () => undefined);
    this.connections.on("connect", (client) => client.on("error", () => undefined));
  }

  get pool(): { using: number; waiting: number; maxSize: number } {
    const { totalCount, idleCount, waitingCount } = this.connections;
    return { using: totalCount - idleCount, waiting: waitingCount, maxSize: LIST_CONNECTIONS };
  }

  /** All of one list, however many statements it takes, on one connection. */
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
        // The server has lost the prepared statement, or its plan, and has done nothing.
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

  /** Also where somebody closes it already: the console stops its node when it quits, and when its input ends. */
  close(): Promise<void> {
    return (this.closing ??= this.connections.end());
  }

  private async connect(): Promise<PoolClient> {
    if (this.connections.waitingCount >= MAX_WAITING) throw busy();
    try {
      return await this.connections.connect();
    } catch (error) {
      const { using, maxSize } = this.pool;
      throw using === maxSize ? busy() : away(error);
    }
  }
}

const tooSlow = () => problem("SERVICE_UNAVAILABLE", "this list takes too long");
/** Whatever the server says to a new connection, such as that there is no such database. */
const away = (cause: unknown) => problem("SERVICE_UNAVAILABLE", "the database can't answer now", { cause });
const busy = () => problem("SERVICE_UNAVAILABLE", "too many lists are under way");
