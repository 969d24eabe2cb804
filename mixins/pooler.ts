import type { Client } from "pg";

/** While other clients use the pooler's sessions, one round may miss that they are shared. Without other clients, the first is conclusive. */
const ROUNDS = 10;
/** How long to wait for a session of a pooler that has none left. */
const WAIT_MS = 1_000;

/**
 * The pid of the server session that a client has for itself. A pooler in between (PgBouncer, and most others) reveals itself by reporting a
 * pid at start-up that is not the session's. Whether the session stays the client's is tested with other clients, each of which holds the
 * session that it gets in a transaction.
 * @param connect opens another connection to the same URL
 * @returns undefined if clients share sessions: prepared statements, settings and advisory locks would get mixed up
 */
export async function sessionOf(client: Client, connect: () => Promise<Client>): Promise<number | undefined> {
  const pid = await pidOf(client);
  if ("processID" in client && client.processID === pid) return pid;
  for (let round = 1; round <= ROUNDS; round++) {
    const other = await connect();
    try {
      const theirs = await heldBy(other);
      if (theirs === "none") return pid; // it has to wait for a session, since each client keeps its own
      if (theirs === "statements" || theirs === pid || (await pidOf(client)) !== pid) return undefined;
    } finally {
      await other.end();
    }
  }
  return pid;
}

async function pidOf(client: Client): Promise<number> {
  const query = { text: "select pg_backend_pid() as pid", query_timeout: WAIT_MS };
  const { rows } = await client.query<{ pid: number }>(query);
  if (rows[0] === undefined) throw new Error("the server returned no pid");
  return rows[0].pid;
}

/** The session that a client holds in a transaction; `none` if it gets no session, `statements` if the pooler allows no transactions. */
async function heldBy(client: Client): Promise<number | "none" | "statements"> {
  try {
    const begin = { text: "begin", query_timeout: WAIT_MS };
    await client.query(begin);
    return await pidOf(client);
  } catch (error) {
    const message = error instanceof Error ? error.message : "";
    if (message === "Query read timeout") return "none";
    if (message.includes("statement pooling")) return "statements"; // PgBouncer: transaction blocks not allowed in statement pooling mode
    throw error;
  }
}
