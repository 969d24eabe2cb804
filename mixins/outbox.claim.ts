import type { Database } from "./database";
import { shareOf } from "./fair-queue";
import type { OutboxRow } from "./outbox";

export interface OutboxLimits {
  /** First wait for a reply, doubled with each attempt. Once it has passed, the reply is overdue. */
  retryMs: number;
  retryMaxMs: number;
  /**
   * In-flight cap of each queue, across all nodes: the greatest weight of its rows in flight at one time. Events have no other
   * back-pressure. One user gets at most a quarter of it.
   */
  maxInFlight: number;
  /** Maximum number of rows in one event. */
  batch: number;
}

/** How fast rows are published. */
export interface Pace extends OutboxLimits {
  /** How long a row counts as in flight after it was published, unless it is settled sooner. */
  windowMs: number;
  /** Nothing replies: published rows are republished before their next attempt is due, those published longest ago first. */
  isProbing: boolean;
}

/** What an insert needs to claim the rows that it writes. */
export type InFlightCap = Pick<Pace, "maxInFlight" | "retryMs" | "windowMs">;

/** Rows that share an in-flight cap and take turns with each other, independently of other queues. */
export interface Queue {
  event: string;
  /** Whether these are rows marked as large. */
  large: boolean;
}

/** While replies arrive, a row is in flight until its reply is overdue. */
export const steady = (limits: OutboxLimits): Pace => ({ ...limits, windowMs: limits.retryMs, isProbing: false });

/**
 * While nothing replies: per interval, one row that was published before and one new row. Their back-off does not grow meanwhile, so none
 * waits longer than the shortest back-off once replies resume.
 */
export const probing = (limits: OutboxLimits, intervalMs: number): Pace => ({
  ...limits,
  retryMaxMs: limits.retryMs,
  maxInFlight: 2,
  batch: 2,
  windowMs: intervalMs * 0.9, // timers are not exact, and the next probe must not slip by an interval
  isProbing: true,
});

/**
 * Claims rows of one queue (event $7, large $8) for this node and schedules their next attempt, in one statement: no transaction is held
 * while publishing, and no two nodes claim the same row. Rows in flight are counted in the database, since a reply may reach another node.
 * The cap $3 may be exceeded by one row, and by one batch for each node that claims at the same moment.
 *
 * In flight: published within the last $9 ms. Rows published earlier are in back-off and don't count towards the cap.
 *
 * Overdue: published, and either its next attempt is due, or that lies further ahead than the maximum back-off $2 (the database's clock was
 * set back), or it was published before `outbox_events.due_before`, or nothing replies ($10). Overdue rows go first but take at most half
 * of the cap, so that some is always left for new rows.
 *
 * New rows are claimed in rotation among users. One pass starts after user $5, wraps around, and ends before any user's second turn. All
 * users get the same weight, and none has more than $6 in flight. `walk` steps from user to user by an index, however many rows are pending,
 * and skips users who have $6 in flight already: fewer than 8 of them, unless the cap is reached.
 *
 * Each part has conditions that match only one index (`attempts < 1`, `attempts > 0` or `emitted_at`). Otherwise, with statistics from
 * before a backlog, the planner would choose another index and read all pending rows.
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
  ), cap as (
    select greatest(0, least($4 - t.rows, $3 - in_flight.n - t.n))::int as n from in_flight cross join taken_again as t
  ), walk (nth, user_id, is_wrapped) as (
    select 0, $5::uuid, false
    union all
    select w.nth + 1, next.user_id, next.is_wrapped
    from walk w cross join cap cross join lateral (
      (select o.user_id, w.is_wrapped from outbox o
       where o.state = 'PENDING' and o.attempts < 1 and o.event = $7 and o.large = $8 and o.user_id > w.user_id and (not w.is_wrapped or o.user_id <= $5)
       order by o.user_id limit 1)
      union all
      (select o.user_id, true from outbox o
       where o.state = 'PENDING' and o.attempts < 1 and o.event = $7 and o.large = $8 and o.user_id <= $5 and not w.is_wrapped
       order by o.user_id limit 1)
      limit 1
    ) as next
    where w.nth < cap.n + 7
  ), waiting as (
    select w.nth, w.user_id, $6 - coalesce(held.n, 0) as free from walk w left join held on held.user_id = w.user_id where w.nth > 0
  ), turns as (
    select t.nth, t.user_id, t.free, least(t.free, ceil(cap.n / count(*) over ()::float8))::int as most
    from (select nth, user_id, free from waiting where free > 0 order by nth limit (select n from cap)) as t cross join cap
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
    where before_all < (select n from cap)
  ), claimed as (
    update outbox as o
    set attempts = attempts + 1, emitted_at = now(),
        next_attempt_at = now() + make_interval(secs => least($2, $1 * power(2, least(attempts, 20))) / 1000.0)
    where o.id in (select id from again union all select id from fresh)
    returning o.id, o.subject, o.user_id, o.event, o.payload
  )
  select claimed.id, claimed.subject, claimed.user_id, claimed.event, claimed.payload,
    (select turns.user_id from fresh join turns on turns.nth = fresh.nth order by fresh.nth desc limit 1) as turn,
    in_flight.n + t.n + taken.n < $3 and (
      taken.n >= cap.n or exists (select from fresh where most < free group by nth, most having sum(weight) >= most)
    ) as more,
    in_flight.n + t.n + taken.n >= $3 or (select count(*) from overdue) > t.rows
      or exists (select from waiting left join turns on turns.nth = waiting.nth where waiting.free <= coalesce(turns.most, 0)) as held_back
  from in_flight cross join cap cross join taken_again as t cross join (select coalesce(sum(weight), 0) as n from fresh) as taken left join claimed on true
  order by claimed.id`;

interface Claimed {
  /** To be published, oldest first. */
  rows: OutboxRow[];
  /** Rows are left that must wait until replies free some of the cap. */
  isHeldBack: boolean;
  /** Rows are left that the cap allows: this batch was too small, or some users' part of it was. */
  isMore: boolean;
  /** The last user served; unchanged if there was none. */
  turn: string;
}

/** @param turn returned by the queue's previous claim; the nil UUID for the first */
export async function claim(db: Database, pace: Pace, { event, large }: Queue, turn: string): Promise<Claimed> {
  const { retryMs, retryMaxMs, maxInFlight, batch, windowMs, isProbing } = pace;
  type Row = { [K in keyof OutboxRow]: OutboxRow[K] | null } & { turn: string | null; more: boolean; held_back: boolean };
  const found = await db.query<Row>(CLAIM, [
    retryMs,
    retryMaxMs,
    maxInFlight,
    batch,
    turn,
    isProbing ? maxInFlight : shareOf(maxInFlight), // a probe must not block the new rows of its user
    event,
    large,
    windowMs,
    isProbing,
  ]);
  const rows = found.flatMap(({ id, subject, user_id, event, payload }) =>
    id === null || subject === null || user_id === null || event === null ? [] : { id, subject, user_id, event, payload: payload ?? {} },
  );
  const [first] = found; // the same in every row
  return {
    rows,
    isHeldBack: first?.held_back ?? false,
    isMore: first?.more ?? false,
    turn: first?.turn ?? turn,
  };
}
