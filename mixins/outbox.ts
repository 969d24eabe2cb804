import type { Database, Query, Reader } from "./database";
import { noteReplies } from "./outbox.replies";

/** A message about one subject, such as an order. */
export interface OutboxMessage {
  /** Its id. */
  subject: string;
  /** The user whose turn it is. */
  user_id: string;
  event: string;
  payload: Record<string, unknown>;
}

/** A message and its id in the outbox. */
export interface OutboxRow extends OutboxMessage {
  id: number;
}

const REFUSALS_BEFORE_PARKING = 10;

/** Settles these events of these subjects. A reply also settles a row that was parked meanwhile. The caller has locked the subjects. */
export async function settle(query: Query, replies: readonly { subject: string; events: readonly string[] }[]): Promise<void> {
  const settled = replies.flatMap(({ subject, events }) => events.map((event) => ({ subject, event })));
  await query(
    `update outbox set state = 'SETTLED', settled_at = now()
     where id in (
       select o.id from outbox as o
       join unnest($1::uuid[], $2::text[]) as reply (subject, event) on o.subject = reply.subject and o.event = reply.event
       where o.state <> 'SETTLED'
       order by o.id for update of o)`,
    [settled.map(({ subject }) => subject), settled.map(({ event }) => event)],
  );
}

export interface OutboxEntry extends Omit<OutboxRow, "user_id" | "payload"> {
  state: "PENDING" | "SETTLED" | "PARKED";
  attempts: number;
  next_attempt_at: Date;
  last_error: string | null;
  created_at: Date;
}

/** One select per state, so that each can use its own index: unsettled rows are found quickly among millions of settled ones. */
const LIST = [
  ["PENDING", "attempts = 0"],
  ["PENDING", "attempts > 0"],
  ["PARKED", "true"],
  ["SETTLED", "true"],
]
  .map(
    ([state, which]) => `
  (select id, subject, event, state, attempts, next_attempt_at, last_error, created_at from outbox
   where '${state}' = any($1::text[]) and state = '${state}' and ${which} and id > $2 order by id limit $3)`,
  )
  .join(" union all ");

/** Rows in the given states after an id, oldest first. */
export function list(db: Reader, states: readonly string[], after: number, limit: number): Promise<OutboxEntry[]> {
  return db.adhoc<OutboxEntry>(`${LIST} order by id limit $3`, [states, after, limit]);
}

/** The number of pending and of parked rows, and the age in seconds of the oldest pending one. */
export interface Backlog {
  pending: number;
  parked: number;
  oldest: number;
}

/** Counts up to a limit, so that it stays fast after a backlog has grown for hours. */
const BACKLOG = `
  select
    (select count(*) from (select from outbox where state = 'PENDING' and attempts = 0 limit $1) as fresh)
      + (select count(*) from (select from outbox where state = 'PENDING' and attempts > 0 limit $1) as again) as pending,
    (select count(*) from outbox where state = 'PARKED') as parked,
    greatest(0, extract(epoch from now() - least(
      (select created_at from outbox where state = 'PENDING' and attempts = 0 order by id limit 1),
      (select min(created_at) from outbox where state = 'PENDING' and attempts > 0)))::float8) as oldest`;

/** @param limit up to which new rows are counted, and up to which those that were published before */
export async function backlog(db: Database, limit = 100_000): Promise<Backlog> {
  const [row] = await db.query<Backlog>(BACKLOG, [limit]);
  return row ?? { pending: 0, parked: 0, oldest: 0 };
}

/** Makes a parked row pending again, as if it were new. The caller has locked its subject. @returns whether it was parked */
export async function revive(query: Query, id: number): Promise<boolean> {
  const revived = await query(
    `update outbox set state = 'PENDING', attempts = 0, refusals = 0, emitted_at = null, next_attempt_at = now(), last_error = null
     where id = $1 and state = 'PARKED' returning id`,
    [id],
  );
  return revived.length > 0;
}

/** Rows that were settled longer ago are no longer needed. */
const KEPT = "7 days";
const SWEEP_LOCK = 7_205_761;
/** Maximum number of rows that one statement deletes. */
const MAX_DELETED = 1_000;

/** Deletes one batch of old settled rows of these events; does nothing while another node is doing so. @returns how many were deleted */
export function deleteSettled(db: Database, events: readonly string[]): Promise<number> {
  return db.transaction(async (query) => {
    const [lock] = await query<{ mine: boolean }>("select pg_try_advisory_xact_lock($1) as mine", [SWEEP_LOCK]);
    if (lock?.mine !== true) return 0;
    const deleted = await query(
      `delete from outbox where id in (
         select id from outbox where state = 'SETTLED' and event = any($1::text[]) and settled_at < now() - interval '${KEPT}' limit $2)
       returning id`,
      [events, MAX_DELETED],
    );
    return deleted.length;
  });
}

export interface Parked {
  subject: string;
  last_error: string;
}

/**
 * Parks the pending rows of these events and subjects, after a reply that does not match them. The caller has locked the subjects.
 * @returns the parked rows
 */
export async function park(
  query: Query,
  events: readonly string[],
  mismatches: readonly { subject: string; message: string }[],
): Promise<Parked[]> {
  const parked = await query<Parked & { event: string }>(
    `update outbox as o set state = 'PARKED', last_error = left(x.message, 500)
     from unnest($1::uuid[], $2::text[]) as x (subject, message) where o.subject = x.subject and o.event = any($3::text[]) and o.state = 'PENDING'
     returning o.subject, o.event, o.last_error`,
    [mismatches.map((m) => m.subject), mismatches.map((m) => m.message), events],
  );
  await noteReplies(query, parked);
  return parked;
}

/**
 * Counts refusals. Parks a row whose refusal is permanent, or that has been refused ten times.
 * @returns the parked rows
 */
export async function refuse(
  query: Query,
  refusals: readonly { subject: string; event: string; permanent: boolean; message: string }[],
): Promise<Parked[]> {
  const rows = await query<Parked & { event: string; state: string }>(
    `update outbox as o
     set refusals = o.refusals + 1, last_error = left(r.message, 500),
         state = case when r.permanent or o.refusals + 1 >= $5 then 'PARKED' else 'PENDING' end
     from (select distinct on (subject, event) * from unnest($1::uuid[], $2::text[], $3::boolean[], $4::text[]) as x (subject, event, permanent, message)
       order by subject, event, permanent desc) as r
     where o.subject = r.subject and o.event = r.event and o.state = 'PENDING'
     returning o.subject, o.event, o.state, o.last_error`,
    [
      refusals.map((r) => r.subject),
      refusals.map((r) => r.event),
      refusals.map((r) => r.permanent),
      refusals.map((r) => r.message),
      REFUSALS_BEFORE_PARKING,
    ],
  );
  await noteReplies(query, rows);
  return rows.filter((row) => row.state === "PARKED");
}
