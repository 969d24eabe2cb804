import type { Database } from "./database";
import { shareOf } from "./fair-queue";
import type { OutboxRow } from "./outbox";

export interface OutboxLimits {
  /** First wait for a reply, doubled with each attempt. After that time a reply is overdue. */
  retryMs: number;
  retryMaxMs: number;
  /**
   * The greatest weight of the rows that are in flight at one time, over all nodes, for each queue: events have no other back-pressure.
   * A quarter of it at most belongs to one user.
   */
  outstanding: number;
  /** Most rows that travel in one event. */
  batch: number;
}

/** How fast rows go out. */
export interface Pace extends OutboxLimits {
  /** A row is in flight for so long from when it was emitted, unless it is settled sooner. */
  windowMs: number;
  /** Nothing replies: an emitted row may go out again whatever its next attempt is, the one first that was emitted longest ago. */
  isProbing: boolean;
}

/** For rows that are claimed as they are written. */
export type Room = Pick<Pace, "outstanding" | "retryMs" | "windowMs">;

/** Rows that take turns with each other, and none with those of another queue. */
export interface Queue {
  event: string;
  /** Those of large orders. */
  large: boolean;
}

/** While replies come, a row is in flight until its reply is overdue. */
export const steady = (limits: OutboxLimits): Pace => ({ ...limits, windowMs: limits.retryMs, isProbing: false });

/**
 * While nothing replies: one row that was emitted before and one new one in each interval. Their back-off does not grow meanwhile, so that none
 * waits for longer than the shortest once replies come.
 */
export const probing = (limits: OutboxLimits, intervalMs: number): Pace => ({
  ...limits,
  retryMaxMs: limits.retryMs,
  outstanding: 2,
  batch: 2,
  windowMs: intervalMs * 0.9, // timers are not exact, and the next probe must not wait for another interval
  isProbing: true,
});

/**
 * Claims rows of one queue (event $7, large $8) for this node and moves their next attempt on, in one statement, so that no transaction is
 * held while emitting and no row is claimed by two nodes. They are counted in the database, since a reply may reach another node; give or
 * take an order, and a batch for each node that claims at the same moment.
 *
 * In flight is what was emitted in the last $9 ms. What was emitted before, and waits in its back-off, takes no room from others.
 *
 * Overdue is what was emitted and whose next attempt has come; what is put off for longer than the maximum back-off $2, which the database's
 * clock was ahead of; what was emitted before `outbox_events.due_before`; and anything while nothing replies ($10). It goes first,
 * and has half of the room at most: new rows always find some.
 *
 * New rows are claimed in rotation among users: one pass begins after user $5, goes on from the first where the last is behind it, and
 * ends before it comes to anyone twice. Each user gets rows of the same weight, and none more than $6 in flight. `walk` goes from user to user by an index,
 * however many rows wait, and past those who have $6 in flight already: fewer than 8, where room is left.
 *
 * Each part names its rows in words that fit one index alone (`attempts < 1`, `attempts > 0` or `emitted_at`): with statistics from before a
 * backlog, the planner would read all that waits by another one.
 */
const CLAIM = `
  with recursive lost as (
    select max(due_before) as before from outbox_events where event = $7 and due_before <= now()
  ), flights as (
    select user_id, sum(weight)::int as n, coalesce(sum(weight) filter (where attempts > 1), 0)::int as repeated from outbox
    where state = 'PENDING' and event = $7 and large = $8 and next_attempt_at > now()
      and emitted_at > greatest(now() - $9 * interval '1 ms', (select before from lost)) and emitted_at <= now() + $9 * interval '1 ms'
    group by user_id
  ), in_flight as (
    select coalesce(sum(n), 0)::int as n, coalesce(sum(repeated), 0)::int as repeated from flights
  ), due as (
    select id, user_id, weight, emitted_at from outbox
    where state = 'PENDING' and attempts > 0 and event = $7 and large = $8 and next_attempt_at <= now()
    order by next_attempt_at limit $4 for update skip locked
  ), ahead as (
    select id, user_id, weight, emitted_at from outbox
    where state = 'PENDING' and attempts > 0 and event = $7 and large = $8 and next_attempt_at > now() + $2 * interval '1 ms'
    order by next_attempt_at desc limit $4 for update skip locked
  ), revived as (
    select id, user_id, weight, emitted_at from outbox
    where state = 'PENDING' and event = $7 and large = $8 and emitted_at <= case when $10 then 'infinity' else (select before from lost) end
    order by emitted_at limit $4 for update skip locked
  ), overdue as (
    select id, user_id, weight, emitted_at from due
    union select id, user_id, weight, emitted_at from ahead
    union select id, user_id, weight, emitted_at from revived
  ), again as (
    select o.id, o.user_id, o.weight
    from (select id, user_id, weight, sum(weight) over (order by emitted_at nulls first, id) - weight as before from overdue) as o cross join in_flight
    where o.before < least($3 - in_flight.n, ($3 + 1) / 2 - in_flight.repeated)
    order by o.before limit $4
  ), held as (
    select user_id, sum(n)::int as n from (select user_id, n from flights union all select user_id, weight from again) as h group by user_id
  ), taken_again as (
    select count(*) as rows, coalesce(sum(weight), 0) as n from again
  ), room as (
    select greatest(0, least($4 - t.rows, $3 - in_flight.n - t.n))::int as n from in_flight cross join taken_again as t
  ), walk (nth, user_id, is_wrapped) as (
    select 0, $5::uuid, false
    union all
    select w.nth + 1, next.user_id, next.is_wrapped
    from walk w cross join room cross join lateral (
      (select o.user_id, w.is_wrapped from outbox o
       where o.state = 'PENDING' and o.attempts < 1 and o.event = $7 and o.large = $8 and o.user_id > w.user_id and (not w.is_wrapped or o.user_id <= $5)
       order by o.user_id limit 1)
      union all
      (select o.user_id, true from outbox o
       where o.state = 'PENDING' and o.attempts < 1 and o.event = $7 and o.large = $8 and o.user_id <= $5 and not w.is_wrapped
       order by o.user_id limit 1)
      limit 1
    ) as next
    where w.nth < room.n + 7
  ), waiting as (
    select w.nth, w.user_id, $6 - coalesce(held.n, 0) as free from walk w left join held on held.user_id = w.user_id where w.nth > 0
  ), turns as (
    select t.nth, t.user_id, t.free, least(t.free, ceil(room.n / count(*) over ()::float8))::int as most
    from (select nth, user_id, free from waiting where free > 0 order by nth limit (select n from room)) as t cross join room
    order by t.nth
  ), eligible as (
    select row.id, row.weight, turns.nth, turns.most, turns.free,
      sum(row.weight) over (partition by turns.nth order by row.id) - row.weight as before
    from turns cross join lateral (
      select id, weight from outbox o
      where o.state = 'PENDING' and o.attempts < 1 and o.event = $7 and o.large = $8 and o.user_id = turns.user_id
      order by id limit turns.most for update skip locked
    ) as row
  ), fresh as (
    select id, weight, nth, most, free from (
      select id, weight, nth, most, free, sum(weight) over (order by nth, id) - weight as before_all from eligible where before < most
    ) as f
    where before_all < (select n from room)
  ), claimed as (
    update outbox as o
    set attempts = attempts + 1, emitted_at = now(),
        next_attempt_at = now() + make_interval(secs => least($2, $1 * power(2, least(attempts, 20))) / 1000.0)
    where o.id in (select id from again union all select id from fresh)
    returning o.id, o.order_id, o.user_id, o.event, o.payload
  )
  select claimed.id, claimed.order_id, claimed.user_id, claimed.event, claimed.payload,
    (select turns.user_id from fresh join turns on turns.nth = fresh.nth order by fresh.nth desc limit 1) as turn,
    in_flight.n + t.n + taken.n < $3 and (
      taken.n >= room.n or exists (select from fresh where most < free group by nth, most having sum(weight) >= most)
    ) as more,
    in_flight.n + t.n + taken.n >= $3 or (select count(*) from overdue) > t.rows
      or exists (select from waiting left join turns on turns.nth = waiting.nth where waiting.free <= coalesce(turns.most, 0)) as held_back
  from in_flight cross join room cross join taken_again as t cross join (select coalesce(sum(weight), 0) as n from fresh) as taken left join claimed on true
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

/** @param turn of the claim of that queue before, the nil UUID for the first */
export async function claim(db: Database, pace: Pace, { event, large }: Queue, turn: string): Promise<Claimed> {
  const { retryMs, retryMaxMs, outstanding, batch, windowMs, isProbing } = pace;
  type Row = { [K in keyof OutboxRow]: OutboxRow[K] | null } & { turn: string | null; more: boolean; held_back: boolean };
  const found = await db.query<Row>(CLAIM, [
    retryMs,
    retryMaxMs,
    outstanding,
    batch,
    turn,
    isProbing ? outstanding : shareOf(outstanding), // the user of the row that is probed must not wait for it with all that is new
    event,
    large,
    windowMs,
    isProbing,
  ]);
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
