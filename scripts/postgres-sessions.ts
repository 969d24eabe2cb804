import { Socket } from "node:net";
import { Client } from "pg";
import { isAlive, ownIdentity } from "./process-identity";

/** Of a connection, and of a query of `Use`: a server that hangs must not keep a process from stopping. */
const TIMEOUT_MS = 10_000;
/** The name of a session that marks a user of the server; the identity of its process follows. */
const USER = "embedded-postgres user ";
const OTHER_USERS = `
  select application_name as name from pg_stat_activity where starts_with(application_name, $1) and pid <> pg_backend_pid()`;

/** Overrides PGSSLMODE and PGOPTIONS, which are meant for other servers: pg reads them unless both are given, and empty does not count. */
const OWN = { ssl: false, options: " ", connectionTimeoutMillis: TIMEOUT_MS } as const;
/** The same as the parameters of a URL. */
export const OWN_PARAMETERS = "?sslmode=disable&options=%20";

/** Runs `work` with a connection of its own. */
export async function connected<T>(url: string, work: (client: Client) => Promise<T>): Promise<T> {
  const client = new Client({ ...OWN, connectionString: url });
  client.on("error", () => undefined); // a lost connection also fails the query, which reports it
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end();
  }
}

/**
 * A process's use of the server: a session that lasts until `end`, or as long as the process. The server itself lists its users, so a
 * process that was killed leaves nothing behind. The session does not keep the process from exiting.
 */
export class Use {
  private isEnding = false;
  private constructor(private readonly client: Client) {}

  /** @param onLoss called if the session ends before `end`: the server has terminated, or restarts after a crash */
  static async begin(url: string, onLoss: () => void = () => undefined): Promise<Use> {
    const client = new Client({ ...OWN, connectionString: url, application_name: USER + ownIdentity(), query_timeout: TIMEOUT_MS });
    const use = new Use(client);
    client.on("error", () => undefined); // "end" follows
    await client.connect();
    client.once("end", () => {
      if (!use.isEnding) onLoss();
    });
    use.socket?.unref();
    return use;
  }

  /** @returns whether this was the last use by a living process; undefined if the session was lost */
  async end(): Promise<boolean | undefined> {
    this.isEnding = true;
    this.socket?.ref();
    try {
      const { rows } = await this.client.query<{ name: string }>(OTHER_USERS, [USER]);
      return !rows.some(({ name }) => isAlive(name.slice(USER.length))); // a session outlives its killed process for a moment
    } catch {
      return undefined;
    } finally {
      await this.client.end();
    }
  }

  private get socket(): Socket | undefined {
    const { stream } = this.client.connection;
    return stream instanceof Socket ? stream : undefined;
  }
}
