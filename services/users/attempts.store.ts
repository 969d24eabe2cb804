import { createHash } from "node:crypto";
import { withoutDeadline } from "../../broker/request";
import type { Database, Query } from "../../mixins/database";

/** Maximum attempts per minute for an account, an address, or both. */
export interface Limit {
  /** What the attempts are counted by, as a list of words. */
  readonly subject: readonly string[];
  /** 0 means no limit. */
  readonly limit: number;
  /** Whether this attempt is allowed although the limit is reached; it is then not counted. Called only in that case. */
  readonly isExempt?: () => Promise<boolean>;
}

/** A counted attempt, with a function that undoes the count; or a refused one, with the seconds until the limit's minute has passed. */
type Attempt = { ok: true; undo: () => Promise<void> } | { ok: false; retryAfterSeconds: number };

interface Counted {
  readonly subject: Buffer;
  /** Start of the minute that it was counted in, as the database formats it. */
  readonly since: string;
}

/** Hashes JSON to keep the words apart: the e-mail address of a login may contain anything. */
const hash = (subject: Limit["subject"]): Buffer => createHash("sha256").update(JSON.stringify(subject)).digest();

/**
 * Counts an attempt before its password is checked, so that many concurrent ones can't all pass. The limits are applied in order. An attempt
 * that one limit refuses counts towards none, and neither does one whose counting fails. Counted in the database, so the limits hold across all
 * nodes.
 */
export async function countAttempt({ query }: Database, limits: readonly Limit[]): Promise<Attempt> {
  const counted: Counted[] = [];
  const undo = (): Promise<void> => withoutDeadline(() => takeBack(query, counted));
  let retryAfterSeconds: number | undefined;
  try {
    for (const { subject: words, limit, isExempt } of limits) {
      if (limit === 0) continue;
      const subject = hash(words);
      const since = await count(query, subject, limit);
      if (since !== undefined) counted.push({ subject, since });
      else if (!(await isExempt?.())) {
        retryAfterSeconds = await secondsLeft(query, subject);
        break;
      }
    }
  } catch (error) {
    await undo();
    throw error;
  }
  if (retryAfterSeconds === undefined) return { ok: true, undo };
  await undo();
  return { ok: false, retryAfterSeconds };
}

const IS_COUNTED = "a.since > now() - interval '1 minute' and a.since <= now() + interval '1 minute'";

/**
 * A minute that starts more than a minute in the future was counted before the database's clock was set back. It counts as expired;
 * otherwise users would be locked out until then.
 * @returns the start of the minute; undefined if the limit is reached
 */
async function count(query: Query, subject: Buffer, limit: number): Promise<string | undefined> {
  const [row] = await query<{ since: string }>(
    `insert into login_attempts as a (subject) values ($1)
     on conflict (subject) do update set
       attempts = case when ${IS_COUNTED} then a.attempts + 1 else 1 end,
       since = case when ${IS_COUNTED} then a.since else now() end
     where a.attempts < $2 or not (${IS_COUNTED})
     returning since::text as since`,
    [subject, limit],
  );
  return row?.since;
}

async function secondsLeft(query: Query, subject: Buffer): Promise<number> {
  const [row] = await query<{ seconds: number }>(
    "select greatest(1, ceil(extract(epoch from since + interval '1 minute' - now())))::int as seconds from login_attempts where subject = $1",
    [subject],
  );
  return row?.seconds ?? 1;
}

/**
 * Undoes counts, only in the minute that they were made in, and deletes rows that reach zero. Rows are locked in the same order
 * everywhere: two statements must not deadlock.
 */
async function takeBack(query: Query, attempts: readonly Counted[]): Promise<void> {
  if (attempts.length === 0) return;
  await query(
    `with l as (
       select a.subject, a.attempts from login_attempts a
         join unnest($1::bytea[], $2::timestamptz[]) as c (subject, since) using (subject, since)
       order by a.subject for update of a
     ), d as (delete from login_attempts a using l where a.subject = l.subject and l.attempts <= 1)
     update login_attempts a set attempts = a.attempts - 1 from l where a.subject = l.subject and l.attempts > 1`,
    [attempts.map(({ subject }) => subject), attempts.map(({ since }) => since)],
  );
}

const MAX_DELETED = 10_000;

/** Deletes expired counts. @returns whether there may be more */
export async function deleteExpiredAttempts({ query }: Database): Promise<boolean> {
  const deleted = await query(
    "delete from login_attempts where subject in (select subject from login_attempts where since < now() - interval '1 minute' limit $1) returning 1",
    [MAX_DELETED],
  );
  return deleted.length === MAX_DELETED;
}
