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

const hash = (what: string): Buffer => createHash("sha256").update(what).digest();

/**
 * Counts a login as failed before its password is looked at, so that many at once can't all pass; one that succeeds is
 * taken back, and what is refused here does not count. The address comes first: one that is refused must not lock accounts. In
 * the database, so that it holds over all nodes.
 * @returns what takes it back
 * @throws TOO_MANY_REQUESTS with the seconds until a minute has passed since the first failure
 */
export async function countAttempt({ query }: Database, { account, address }: Attempt, limits: LoginLimits): Promise<() => Promise<void>> {
  const subjects = [
    ...(address === undefined ? [] : [{ subject: hash(`address ${address}`), limit: limits.address }]),
    { subject: hash(`account ${account}`), limit: limits.auth },
  ].filter(({ limit }) => limit > 0);
  const counted: Buffer[] = [];
  for (const { subject, limit } of subjects) {
    if (await count(query, subject, limit)) {
      counted.push(subject);
      continue;
    }
    await takeBack(query, counted);
    throw problem("TOO_MANY_REQUESTS", "too many failed logins; try again later", { retryAfter: await secondsLeft(query, subject) });
  }
  return () => takeBack(query, counted);
}

/** @returns whether it was still within the limit */
async function count(query: Query, subject: Buffer, limit: number): Promise<boolean> {
  const rows = await query(
    `insert into login_attempts as a (subject) values ($1)
     on conflict (subject) do update set
       attempts = case when a.since > now() - interval '1 minute' then a.attempts + 1 else 1 end,
       since = case when a.since > now() - interval '1 minute' then a.since else now() end
     where a.attempts < $2 or a.since <= now() - interval '1 minute'
     returning 1`,
    [subject, limit],
  );
  return rows.length > 0;
}

async function secondsLeft(query: Query, subject: Buffer): Promise<number> {
  const [row] = await query<{ seconds: number }>(
    "select greatest(1, ceil(extract(epoch from since + interval '1 minute' - now())))::int as seconds from login_attempts where subject = $1",
    [subject],
  );
  return row?.seconds ?? 1;
}

/** In one order everywhere: two statements must not wait for each other. */
async function takeBack(query: Query, subjects: readonly Buffer[]): Promise<void> {
  if (subjects.length === 0) return;
  await query(
    `with l as (select subject from login_attempts where subject = any($1::bytea[]) and attempts > 0 order by subject for update)
     update login_attempts a set attempts = attempts - 1 from l where a.subject = l.subject`,
    [subjects],
  );
}

const MAX_FORGOTTEN = 10_000;

/** Forgets whose minute is over. @returns whether there may be more */
export async function forgetAttempts({ query }: Database): Promise<boolean> {
  const gone = await query(
    "delete from login_attempts where subject in (select subject from login_attempts where since < now() - interval '1 minute' limit $1) returning 1",
    [MAX_FORGOTTEN],
  );
  return gone.length === MAX_FORGOTTEN;
}
