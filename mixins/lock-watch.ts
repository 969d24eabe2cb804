import { setTimeout as delay } from "node:timers/promises";
import type { Client } from "pg";

const EVERY_MS = 100;
const QUERY_TIMEOUT_MS = 1_000;

/** The lock that a session waits for, and one holder, as far as this role may see: one idle in transaction, else the oldest transaction. */
const WAITS_FOR = `
  select coalesce(l.relation::regclass::text, l.locktype) as what, h.pid, h.usename as role, h.application_name as application, h.state
  from pg_locks l cross join lateral unnest(pg_blocking_pids(l.pid)) as b (pid) join pg_stat_activity h on h.pid = b.pid
  where l.pid = $1 and not l.granted
  order by h.state = 'idle in transaction' desc nulls last, h.xact_start nulls last, h.pid limit 1`;

interface Holder {
  what: string;
  pid: number;
  role: string | null;
  application: string | null;
  state: string | null;
}

/** Polls which lock a session waits for, since the error of a lock timeout names neither the locked object nor the holder. */
export class LockWatch {
  private readonly ending = new AbortController();
  private readonly polling: Promise<void>;
  private last = "a lock";

  /** @param pid of the session's process on the server */
  constructor(pid: number, connect: () => Promise<Client>) {
    this.polling = this.poll(pid, connect);
  }

  /** @returns the last lock that the session waited for */
  async end(): Promise<string> {
    this.ending.abort();
    await this.polling;
    return this.last;
  }

  private async poll(pid: number, connect: () => Promise<Client>): Promise<void> {
    const { signal } = this.ending;
    let client: Client | undefined;
    try {
      for (;;) {
        await delay(EVERY_MS, undefined, { signal });
        client ??= await connect();
        const query = { text: WAITS_FOR, values: [pid], query_timeout: QUERY_TIMEOUT_MS };
        const { rows } = await client.query<Holder>(query);
        if (rows[0] !== undefined) this.last = describe(rows[0]);
      }
    } catch {
      // It was ended, or it can no longer poll; then only the holder of the lock stays unknown.
    } finally {
      await client?.end();
    }
  }
}

function describe({ what, pid, role, application, state }: Holder): string {
  if (what === "advisory") return `another node's migration, run by session ${pid}`;
  const who = [application, role && `role ${role}`, state].filter((part) => part !== null && part !== "").join(", ");
  return `${what}, locked by session ${pid} (${who})`;
}
