import { createHash } from "node:crypto";
import { problem } from "../../broker/errors";
import type { Database, Query } from "../../mixins/database";

/** Failed logins a minute; 0 is no limit. */
export interface LoginLimits {
  /** for one account, whether it exists or not */
  auth: number;
  /** from one address */
  address: number;
}

/** Who tries to log in: an account, and the address that it is tried from, where that is known. */
export interface Attempt {
  account: string;
  address: string | undefined;
}

interface Subject {
  hash: Buffer;
  limit: number;
}

/** In one order everywhere: two statements must not wait for each other. */
function subjectsOf({ account, address }: Attempt, limits: LoginLimits): Subject[] {
  const hash = (what: string): Buffer => createHash("sha256").update(what).digest();
  return [
    { hash: hash(`account ${account}`), limit: limits.auth },
    ...(address === undefined ? [] : [{ hash: hash(`address ${address}`), limit: limits.address }]),
  ]
    .filter(({ limit }) => limit > 0)
    .sort((a, b) => a.hash.compare(b.hash));
}

/**
 * Counts a login as failed before its password is looked at, so that many at once can't all pass; one that succeeds is
 * taken back. In the database, so that it holds over all nodes.
 * @returns what takes it back
 * @throws TOO_MANY_REQUESTS with the seconds until a minute has passed since the first failure
 */
export async function countAttempt({ query }: Database, attempt: Attempt, limits: LoginLimits): Promise<() => Promise<void>> {
  const subjects = subjectsOf(attempt, limits);
  if (subjects.length === 0) return () => Promise.resolve();
  const hashes = subjects.map(({ hash }) => hash);
  const rows = await query<{ subject: Buffer; attempts: number; seconds: number }>(
    `insert into login_attempts as a (subject) select unnest($1::bytea[])
     on conflict (subject) do update set
       attempts = case when a.since > now() - interval '1 minute' then a.attempts + 1 else 1 end,
       since = case when a.since > now() - interval '1 minute' then a.since else now() end
     returning subject, attempts, greatest(1, ceil(extract(epoch from since + interval '1 minute' - now())))::int as seconds`,
    [hashes],
  );
  const over = rows.filter((row) => subjects.some(({ hash, limit }) => hash.equals(row.subject) && row.attempts > limit));
  if (over.length > 0)
    throw problem("TOO_MANY_REQUESTS", "too many failed logins; try again later", {
      retryAfter: Math.max(...over.map((row) => row.seconds)),
    });
  return () => takeBack(query, hashes);
}

async function takeBack(query: Query, hashes: Buffer[]): Promise<void> {
  await query(
    `with l as (select subject from login_attempts where subject = any($1::bytea[]) and attempts > 0 order by subject for update)
     update login_attempts a set attempts = attempts - 1 from l where a.subject = l.subject`,
    [hashes],
  );
}

/** Forgets whose minute is over. */
export async function forgetAttempts({ query }: Database): Promise<void> {
  await query("delete from login_attempts where since < now() - interval '1 minute'");
}
