import type { Database, Query, Reader } from "./database";
import { shareOf } from "./fair-queue";

/** What is emitted for one order. */
export interface Announcement {
  order_id: string;
  /** The order's user. */
  user_id: string;
  event: string;
  payload: Record<string, unknown>;
}

/** An announcement that waits for its answer. */
export interface OutboxRow extends Announcement {
  id: number;
}

export interface OutboxLimits {
  /** First wait for an answer, doubled with each attempt. */
  retryMs: number;
  retryMaxMs: number;
  /**
   * The greatest weight of the rows that are in flight (emitted, and without a reply) at one time, over all nodes, of large ones and of the others
   * each: events have no other back-pressure. A quarter of it at most belongs to one user.
   */
  outstanding: number;
  /** Most rows that travel in one event. */
  batch: number;
}

/** How many announcements may be outstanding, those that are included; and when one that gets no answer is due again. */
export type Room = Pick<OutboxLimits, "outstanding" | "retryMs">;

export const REFUSALS_BEFORE_PARKING = 10;

/**
 * Claims rows for this node and moves their next attempt on, in one statement, so that no transaction is held while
 * emitting and no row is claimed by two nodes. First those without a reply in time, then new ones, as long as there are not too
 * many in flight; give or take an order, and a batch for each node that claims at the same moment. They are counted in the database, since a
 * reply may reach another node.
 *
 * Large rows ($7) and the others are claimed by turns of their own, and none counts against the other kind.
 *
 * New rows are claimed in rotation among users: one pass begins after user $5, goes on from the first where the last is behind it, and
 * ends before it comes to anyone twice. Each user gets rows of the same weight, and none more than $6 in flight. `walk` goes from user to user by an index,
 * however many rows wait, and past those who have $6 in flight already: fewer than 8, where room is left. It says `attempts < 1`, as only that index does:
 * with `= 0` and statistics from before a backlog, the planner would read all that waits by another one.
 */
const CLAIM = `
  with recursive flights as (
    select user_id, sum(weight)::int as n from outbox where state = 'PENDING' and attempts > 0 and large = $7 group by user_id
  ), in_flight as (
    select coalesce(sum(n), 0)::int as n from flights
  ), again as (
    select id from outbox
    where state = 'PENDING' and attempts > 0 and large = $7 and next_attempt_at <= now()
    order by next_attempt_at limit $4 for update skip locked
  ), room as (
    select greatest(0, least($4 - (select count(*) from again), $3 - (select n from in_flight)))::int as n
  ), walk (nth, user_id, is_wrapped) as (
    select 0, $5::uuid, false
    union all
    select w.nth + 1, next.user_id, next.is_wrapped
    from walk w cross join room cross join lateral (
      (select o.user_id, w.is_wrapped from outbox o
       where o.state = 'PENDING' and o.attempts < 1 and o.large = $7 and o.user_id > w.user_id and (not w.is_wrapped or o.user_id <= $5) order by o.user_id limit 1)
      union all
      (select o.user_id, true from outbox o
       where o.state = 'PENDING' and o.attempts < 1 and o.large = $7 and o.user_id <= $5 and not w.is_wrapped order by o.user_id limit 1)
      limit 1
    ) as next
    where w.nth < room.n + 7
  ), waiting as (
    select w.nth, w.user_id, $6 - coalesce(flights.n, 0) as free from walk w left join flights on flights.user_id = w.user_id where w.nth > 0
  ), turns as (
    select t.*, least(t.free, ceil(room.n / count(*) over ()::float8))::int as most
    from (select * from waiting where free > 0 order by nth limit (select n from room)) as t cross join room
    order by t.nth
  ), eligible as (
    select row.*, turns.nth, turns.most, turns.free, sum(row.weight) over (partition by turns.nth order by row.id) - row.weight as before
    from turns cross join lateral (
      select id, user_id, weight from outbox o
      where o.state = 'PENDING' and o.attempts < 1 and o.large = $7 and o.user_id = turns.user_id
      order by id limit turns.most for update skip locked
    ) as row
  ), fresh as (
    select * from (
      select *, sum(weight) over (order by nth, id) - weight as before_all from eligible where before < most
    ) as f
    where before_all < (select n from room)
  ), claimed as (
    update outbox as o
    set attempts = attempts + 1,
        next_attempt_at = now() + make_interval(secs => least($2, $1 * power(2, least(attempts, 20))) / 1000.0)
    where o.id in (select id from again union all select id from fresh)
    returning o.id, o.order_id, o.user_id, o.event, o.payload
  )
  select claimed.*, (select user_id from fresh order by nth desc limit 1) as turn,
    in_flight.n + taken.n < $3 and (
      taken.n >= room.n or exists (select from fresh where most < free group by nth, most having sum(weight) >= most)
    ) as more,
    in_flight.n + taken.n >= $3
      or exists (select from waiting left join turns on turns.nth = waiting.nth where waiting.free <= coalesce(turns.most, 0)) as held_back
  from in_flight cross join room cross join (select coalesce(sum(weight), 0) as n from fresh) as taken left join claimed on true
  order by claimed.id`;

export interface Claimed {
  /** To be emitted, oldest first. */
  rows: OutboxRow[];
  /** Rows wait for replies to others. */
  isHeldBack: boolean;
  /** Room is left: this batch was too small, or some users' share of it. */
  isMore: boolean;
  /** The last user served; as before where nobody was. */
  turn: string;
}

/**
 * @param large which rows: large ones, or the others
 * @param turn of the claim of such rows before, the nil UUID for the first
 */
export async function claim(
  db: Database,
  { retryMs, retryMaxMs, outstanding, batch }: OutboxLimits,
  large: boolean,
  turn: string,
): Promise<Claimed> {
  type Row = { [K in keyof OutboxRow]: OutboxRow[K] | null } & { turn: string | null; more: boolean; held_back: boolean };
  const found = await db.query<Row>(CLAIM, [retryMs, retryMaxMs, outstanding, batch, turn, shareOf(outstanding), large]);
  const rows = found.flatMap(({ id, order_id, user_id, event, payload }) =>
    id === null || order_id === null || user_id === null || event === null ? [] : { id, order_id, user_id, event, payload: payload ?? {} },
  );
  const [first] = found; // the same in each
  return {
    rows,
    isHeldBack: first?.held_back ?? false,
    isMore: first?.more ?? false,
    turn: first?.turn ?? turn,
  };
}

/** Makes every unanswered row due now, since the answers of the meantime are lost. Rows that others hold are not waited for. */
export async function makeDue(db: Database): Promise<void> {
  await db.query(`
    update outbox set next_attempt_at = now()
    where id in (select id from outbox where state = 'PENDING' and attempts > 0 and next_attempt_at > now() order by id for update skip locked)`);
}

/**
 * These orders' announcements are answered: of the given event, or every one. An answer wins over a row that was parked
 * meanwhile. The caller holds the orders' rows.
 */
export async function settle(query: Query, answers: readonly { order_id: string; event: string | null }[]): Promise<void> {
  await query(
    `update outbox set state = 'SETTLED', settled_at = now()
     where id in (
       select o.id from outbox as o
       join unnest($1::uuid[], $2::text[]) as answer (order_id, event) on o.order_id = answer.order_id
       where o.state <> 'SETTLED' and (answer.event is null or o.event = answer.event)
       order by o.id for update of o)`,
    [answers.map((a) => a.order_id), answers.map((a) => a.event)],
  );
}

export interface OutboxEntry extends Omit<OutboxRow, "user_id" | "payload"> {
  state: "PENDING" | "SETTLED" | "PARKED";
  attempts: number;
  next_attempt_at: Date;
  last_error: string | null;
  created_at: Date;
}

/** Each state by the index that the relay has for it anyway: what is open is found among millions that are settled. */
const LIST = [
  ["PENDING", "attempts = 0"],
  ["PENDING", "attempts > 0"],
  ["PARKED", "true"],
  ["SETTLED", "true"],
]
  .map(
    ([state, which]) => `
  (select id, order_id, event, state, attempts, next_attempt_at, last_error, created_at from outbox
   where '${state}' = any($1::text[]) and state = '${state}' and ${which} and id > $2 order by id limit $3)`,
  )
  .join(" union all ");

/** Rows in the given states after an id, oldest first. */
export function list(db: Reader, states: readonly string[], after: number, limit: number): Promise<OutboxEntry[]> {
  return db.adhoc<OutboxEntry>(`${LIST} order by id limit $3`, [states, after, limit]);
}

/** What waits: how many rows, and the age in seconds of the oldest that is not given up. */
export interface Backlog {
  pending: number;
  parked: number;
  oldest: number;
}

/** A backlog that has grown for hours must not make asking for it slow. */
const BACKLOG = `
  select
    (select count(*) from (select from outbox where state = 'PENDING' and attempts = 0 limit 100000) as fresh)
      + (select count(*) from (select from outbox where state = 'PENDING' and attempts > 0 limit 100000) as again) as pending,
    (select count(*) from outbox where state = 'PARKED') as parked,
    coalesce(extract(epoch from now() - least(
      (select created_at from outbox where state = 'PENDING' and attempts = 0 order by id limit 1),
      (select min(created_at) from outbox where state = 'PENDING' and attempts > 0)))::float8, 0) as oldest`;

export async function backlog(db: Database): Promise<Backlog> {
  const [row] = await db.query<Backlog>(BACKLOG);
  return row ?? { pending: 0, parked: 0, oldest: 0 };
}

/** Makes a parked row new again. The caller holds the order's row. @returns whether it was parked */
export async function revive(query: Query, id: number): Promise<boolean> {
  const revived = await query(
    `update outbox set state = 'PENDING', attempts = 0, refusals = 0, next_attempt_at = now(), last_error = null
     where id = $1 and state = 'PARKED' returning id`,
    [id],
  );
  return revived.length > 0;
}

/** Rows that are settled for longer than this are of no more use; orders and their history stay for ever. */
const KEPT = "7 days";
const SWEEP_LOCK = 7_205_761;

/** Deletes old settled rows, a batch at a time, by one node at a time. @returns how many */
export function deleteSettled(db: Database, batch = 1_000): Promise<number> {
  return db.transaction(async (query) => {
    const [lock] = await query<{ mine: boolean }>("select pg_try_advisory_xact_lock($1) as mine", [SWEEP_LOCK]);
    if (lock?.mine !== true) return 0;
    const deleted = await query(
      `delete from outbox where id in (
         select id from outbox where state = 'SETTLED' and settled_at < now() - interval '${KEPT}' order by settled_at limit $1)
       returning id`,
      [batch],
    );
    return deleted.length;
  });
}

export interface Parked {
  order_id: string;
  last_error: string;
}

/** Parks all that waits for a reply about these orders. The caller holds the orders' rows. @returns the parked rows */
export const park = (query: Query, orders: readonly { order_id: string; message: string }[]): Promise<Parked[]> =>
  query<Parked>(
    `update outbox as o set state = 'PARKED', last_error = left(x.message, 500)
     from unnest($1::uuid[], $2::text[]) as x (order_id, message) where o.order_id = x.order_id and o.state = 'PENDING'
     returning o.order_id, o.last_error`,
    [orders.map((o) => o.order_id), orders.map((o) => o.message)],
  );

/**
 * Counts a refusal; parks a row whose refusal is permanent, or that was refused ten times.
 * @returns the parked rows
 */
export async function refuse(
  query: Query,
  refusals: readonly { order_id: string; event: string; permanent: boolean; message: string }[],
): Promise<Parked[]> {
  const rows = await query<Parked & { state: string }>(
    `update outbox as o
     set refusals = o.refusals + 1, last_error = left(r.message, 500),
         state = case when r.permanent or o.refusals + 1 >= $5 then 'PARKED' else 'PENDING' end
     from (select distinct on (order_id, event) * from unnest($1::uuid[], $2::text[], $3::boolean[], $4::text[]) as x (order_id, event, permanent, message)
       order by order_id, event, permanent desc) as r
     where o.order_id = r.order_id and o.event = r.event and o.state = 'PENDING'
     returning o.order_id, o.state, o.last_error`,
    [
      refusals.map((r) => r.order_id),
      refusals.map((r) => r.event),
      refusals.map((r) => r.permanent),
      refusals.map((r) => r.message),
      REFUSALS_BEFORE_PARKING,
    ],
  );
  return rows.filter((row) => row.state === "PARKED");
}
