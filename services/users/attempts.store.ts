import { createHash } from "node:crypto";
import { regardless } from "../../broker/request";
import type { Database, Query } from "../../mixins/database";

/** Most attempts a minute of one kind: of an account, an address, or both. */
export interface Limit {
  /** What is counted, as a list of words. */
  readonly subject: readonly string[];
  /** 0 is no limit. */
  readonly limit: number;
  /** Asked only when the limit is reached: whether this attempt is let through, uncounted. */
  readonly isExempt?: () => Promise<boolean>;
}

/** An attempt that was counted, with what takes it back; or one beyond a limit, with the seconds until that limit's minute is over. */
export type Attempt = { ok: true; undo: () => Promise<void> } | { ok: false; retryAfter: number };

interface Counted {
  readonly subject: Buffer;
  /** The minute it was counted in, as the database writes it. */
  readonly since: string;
}

/** Of JSON, so that no word can run into the next one: an e-mail address of a login may hold anything. */
const hash = (subject: Limit["subject"]): Buffer => createHash("sha256").update(JSON.stringify(subject)).digest();

/**
 * Counts an attempt before its password is looked at, so that many at once can't all pass. The limits are applied in their
 * order, and what is refused by one does not count for any. In the database, so that it holds over all nodes.
 * Where it returns a refusal or throws, nothing stays counted.
 */
export async function countAttempt({ query }: Database, limits: readonly Limit[]): Promise<Attempt> {
  const counted: Counted[] = [];
  const undo = (): Promise<void> => regardless(() => takeBack(query, counted));
  let retryAfter: number | undefined;
  try {
    for (const { subject: words, limit, isExempt } of limits) {
      if (limit === 0) continue;
      const subject = hash(words);
      const since = await count(query, subject, limit);
      if (since !== undefined) counted.push({ subject, since });
      else if (!(await isExempt?.())) {
        retryAfter = await secondsLeft(query, subject);
        break;
      }
    }
  } catch (error) {
    await undo();
    throw error;
  }
  if (retryAfter === undefined) return { ok: true, undo };
  await undo();
  return { ok: false, retryAfter };
}

const IS_COUNTED = "a.since > now() - interval '1 minute' and a.since <= now() + interval '1 minute'";

/**
 * A minute that begins more than a minute ahead was counted before the database's clock was set back: it is over, or people would be locked out until then.
 * @returns since when attempts are counted; undefined where the limit was reached
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
 * Only in the minute that it was counted in; a row that counts nothing any more is deleted. In one order everywhere: two
 * statements must not wait for each other.
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

const MAX_FORGOTTEN = 10_000;

/** Forgets whose minute is over. @returns whether there may be more */
export async function forgetAttempts({ query }: Database): Promise<boolean> {
  const gone = await query(
    "delete from login_attempts where subject in (select subject from login_attempts where since < now() - interval '1 minute' limit $1) returning 1",
    [MAX_FORGOTTEN],
  );
  return gone.length === MAX_FORGOTTEN;
}
