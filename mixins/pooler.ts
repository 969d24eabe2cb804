import type { Client } from "pg";

/** Other clients may use the sessions at the same moment: each round finds out with good odds, and the first one where they don't. */
const ROUNDS = 10;
/** For a session of a pooler that has none left. */
const WAIT_MS = 1_000;

/**
 * The pid of the server's session that a client has for itself. A pooler between (PgBouncer, and most others) shows by another pid at start-up than
 * the session has. Whether that stays the client's is found out with other clients, which hold the session that they get by a transaction.
 * @param connect to the same URL
 * @returns undefined where clients share sessions: prepared statements, settings and advisory locks would get mixed up
 */
export async function sessionOf(client: Client, connect: () => Promise<Client>): Promise<number | undefined> {
  const pid = await pidOf(client);
  if ("processID" in client && client.processID === pid) return pid;
  for (let round = 1; round <= ROUNDS; round++) {
    const other = await connect();
    try {
      const theirs = await heldBy(other);
      if (theirs === "none") return pid; // it waits for one, since each client keeps its own
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
  if (rows[0] === undefined) throw new Error("the server has no pid");
  return rows[0].pid;
}

/** The session that a client has as long as its transaction lasts; `statements` where it may have none that lasts. */
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
