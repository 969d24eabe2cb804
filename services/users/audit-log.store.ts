import { currentRequestId } from "../../broker/request";
import type { AuditAction, AuditEntry } from "../../contracts/accounts";
import type { Database, Query, Reader } from "../../mixins/database";
import { decodeCursor, encodeCursor, page } from "../../mixins/keyset";

/** Who does something, and from which address, as far as known. */
export interface By {
  /** A user's id, or `system`. */
  actor: string | null;
  address?: string | undefined;
}
export const SYSTEM: By = { actor: "system" };

/** Writes an entry, in the transaction of the change that it records, with the id of the current request. */
export async function record(query: Query, { actor, address }: By, action: AuditAction, subject: string | null): Promise<void> {
  await query("insert into audit_log (actor, action, subject, address, request_id) values ($1, $2, $3, $4, left($5, 128))", [
    actor,
    action,
    subject,
    address ?? null,
    currentRequestId() ?? null,
  ]);
}

/** Maximum entries per user per hour for each of the actions of `recordSession`. */
const MAX_OF_USER = 60;

/**
 * Logs what users do to their own sessions, in the same transaction, up to a maximum, since successful logins have no rate limit. The
 * first entry above the maximum is replaced by `sessions.omitted`, once per hour; others are omitted.
 */
export async function recordSession(
  query: Query,
  { actor, address }: By,
  action: "login.succeeded" | "logout" | "refresh.reused" | "password.changed",
  user: string,
): Promise<void> {
  await query(
    `with recent as (
       select action from audit_log
       where subject = $3 and at > now() - interval '1 hour'
         and action in ('login.succeeded', 'logout', 'refresh.reused', 'password.changed', 'sessions.omitted')
     ), scope as (
       select count(*) filter (where action = $2) >= $6 as is_full, count(*) filter (where action = 'sessions.omitted') > 0 as is_marked
       from recent
     )
     insert into audit_log (actor, action, subject, address, request_id)
     select $1, case when is_full then 'sessions.omitted' else $2 end, $3, $4, left($5, 128)
     from scope where not (is_full and is_marked)`,
    [actor, action, user, address ?? null, currentRequestId() ?? null, MAX_OF_USER],
  );
}

/** Maximum failures logged per hour: from one address, and in total. At 150 bytes each, less than 6 GB in 400 days. */
const MAX_FAILURES_OF_ADDRESS = 60;
const MAX_FAILURES = 3_600;
/** More than the logged failures of an hour and their markers. */
const MAX_COUNTED = 4_000;

/**
 * Logs a failed login or password change, up to a maximum, since anybody can cause them. The first entry above the maximum is replaced by
 * `failures.omitted`: once per address per hour, and once per hour without an address if the total is exceeded. Concurrent failures may
 * exceed the maximum by their number.
 * @param subject id of the account; null if there is none
 */
export async function recordFailure(
  { query }: Database,
  { actor, address }: By,
  action: "login.failed" | "password.refused",
  subject: string | null,
): Promise<void> {
  await query(
    `with recent as (
       select action = 'failures.omitted' as is_marker, address from audit_log
       where action in ('login.failed', 'password.refused', 'failures.omitted') and at > now() - interval '1 hour'
       order by at desc limit $8
     ), scope as (
       select count(*) filter (where not is_marker) >= $7 as everywhere,
         count(*) filter (where not is_marker and address is not distinct from $4) >= $6 as here
       from recent
     )
     insert into audit_log (actor, action, subject, address, request_id)
     select $1, case when everywhere or here then 'failures.omitted' else $2 end, $3, case when not everywhere then $4 end, left($5, 128)
     from scope
     where not (everywhere or here)
       or not exists (select from recent where is_marker and address is not distinct from case when not everywhere then $4 end)`,
    [actor, action, subject, address ?? null, currentRequestId() ?? null, MAX_FAILURES_OF_ADDRESS, MAX_FAILURES, MAX_COUNTED],
  );
}

interface AuditFilter {
  actor?: string;
  subject?: string;
  action?: string;
}

interface AuditRow extends Omit<AuditEntry, "at"> {
  at: Date;
}

/**
 * One page, newest first. The first filter's column leads the sort order and is compared as a range, so only the index that starts with
 * it provides that order: otherwise the planner might scan the whole log, newest first. Rows that the other filters exclude are read, too.
 */
export async function listAudit(
  db: Reader,
  filter: AuditFilter,
  limit: number,
  cursor: string | undefined,
): Promise<{ items: AuditEntry[]; next_cursor: string | null }> {
  const [first, ...others] = FILTERS.flatMap((column) => (filter[column] === undefined ? [] : { column, value: filter[column] }));
  const name = ["audit-log", ...FILTERS.map((column) => filter[column] ?? "")].join(" ");
  const [before = Number.MAX_SAFE_INTEGER] = cursor === undefined ? [] : decodeCursor(name, cursor, ["number"]);
  const rows = await (first === undefined
    ? db.query<AuditRow>(`${SELECT} where id < $1 order by id desc limit $2`, [before, limit + 1])
    : db.query<AuditRow>(
        `${SELECT} where ${first.column} >= $3 and ${first.column} <= $3 and (${first.column}, id) < ($3, $1)
           ${others.map(({ column }, i) => `and ${column} = $${i + 4}`).join(" ")}
         order by ${first.column} desc, id desc limit $2`,
        [before, limit + 1, first.value, ...others.map(({ value }) => value)],
      ));
  return page(rows, limit, present, (last) => encodeCursor(name, [last.id]));
}

/** Most selective first. */
const FILTERS = ["subject", "actor", "action"] as const;
const SELECT = "select id, at, actor, action, subject, address, request_id from audit_log";

const present = (row: AuditRow): AuditEntry => ({ ...row, at: row.at.toISOString() });

const KEPT = "400 days";
const MAX_DELETED = 10_000;

/** Deletes entries older than 400 days. Ids are close enough to age order for that. @returns whether there may be more */
export async function deleteExpiredEntries({ query }: Database): Promise<boolean> {
  const deleted = await query(
    `delete from audit_log where id in (
       select id from (select id, at from audit_log order by id limit $1) as oldest where at < now() - interval '${KEPT}'
     ) returning 1`,
    [MAX_DELETED],
  );
  return deleted.length === MAX_DELETED;
}
