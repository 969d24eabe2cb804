import { setTimeout as delay } from "node:timers/promises";
import type { Client } from "pg";

const EVERY_MS = 100;
const QUERY_TIMEOUT_MS = 1_000;

/** What a session waits for, and who holds that, as far as this role may see it: whoever is idle in a transaction, or has been in one for the longest. */
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

/** Looks now and then for what a session waits, since the error of a lock timeout says neither what was locked nor by whom. */
export class LockWatch {
  private readonly ending = new AbortController();
  private readonly looking: Promise<void>;
  private last = "a lock";

  /** @param pid of the session, on the server */
  constructor(pid: number, connect: () => Promise<Client>) {
    this.looking = this.look(pid, connect);
  }

  /** @returns what it has waited for last */
  async end(): Promise<string> {
    this.ending.abort();
    await this.looking;
    return this.last;
  }

  private async look(pid: number, connect: () => Promise<Client>): Promise<void> {
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
      // It has ended; or can't look any more, and then all that is lacking is who holds the lock.
    } finally {
      await client?.end();
    }
  }
}

function describe({ what, pid, role, application, state }: Holder): string {
  if (what === "advisory") return `another node's, which session ${pid} runs`;
  const who = [application, role && `role ${role}`, state].filter((part) => part !== null && part !== "").join(", ");
  return `${what}, locked by session ${pid} (${who})`;
}
