import type { Database, Query } from "./database";

/*
 * Whether the events of an outbox get replies. An event is silent if a row that was published after its last reply has been without a reply
 * for a while. This is read from the outbox itself, so that a reply costs no write. Only a change of this state is written; all nodes read
 * it. A timestamp in the future dates from before the database's clock was set back, and is ignored.
 */

/** Looks for replies to each event. When they resume, rows published more than $3 ms before become due, since their replies are overdue. */
const WATCH = `
  with watched as (
    select e.event, s.silent_since, s.silent_since is not null as was_silent, coalesce(s.silent_since <= now(), false) as has_been_silent,
      case when s.due_before <= now() then s.due_before end as due_before,
      greatest(last.settled_at, case when s.replied_at <= now() then s.replied_at end) as replied_at
    from unnest($1::text[]) as e (event)
    left join outbox_events s on s.event = e.event
    left join lateral (
      select o.settled_at from outbox o where o.state = 'SETTLED' and o.event = e.event and o.settled_at <= now() order by o.settled_at desc limit 1
    ) as last on true
  ), judged as (
    select w.event, w.was_silent, case
      when w.has_been_silent then coalesce(w.replied_at <= w.silent_since, true)
      else ${["not o.large", "o.large"]
        .map(
          (kind) => `exists (
        select from outbox o
        where o.state = 'PENDING' and o.event = w.event and ${kind}
          and o.emitted_at > greatest(w.replied_at, w.due_before, '-infinity') and o.emitted_at < now() - $2 * interval '1 ms')`,
        )
        .join(" or ")}
      end as is_silent
    from watched w
  ), changed as (
    insert into outbox_events as e (event, silent_since, due_before)
    select event, case when is_silent then now() end, case when not is_silent then now() - $3 * interval '1 ms' end
    from judged where is_silent <> was_silent order by event
    on conflict (event) do update set silent_since = excluded.silent_since,
      -- another node may have moved it on meanwhile
      due_before = greatest(excluded.due_before, case when e.due_before <= clock_timestamp() then e.due_before end)
  )
  select event from judged where is_silent`;

/**
 * @param patienceMs how long an event must go without replies to count as silent
 * @param overdueMs the time after which a reply is overdue
 * @returns the silent events
 */
export async function watchReplies(
  db: Database,
  events: readonly string[],
  { patienceMs, overdueMs }: { patienceMs: number; overdueMs: number },
): Promise<Set<string>> {
  const rows = await db.query<{ event: string }>(WATCH, [events, patienceMs, overdueMs]);
  return new Set(rows.map(({ event }) => event));
}

/** Records replies that settle nothing, since the outbox does not show them. @param rows those that were replied to */
export async function noteReplies(query: Query, rows: readonly { event: string }[]): Promise<void> {
  if (rows.length === 0) return;
  await query(
    `insert into outbox_events (event, replied_at) select event, now() from unnest($1::text[]) as e (event) order by event
     on conflict (event) do update set replied_at = excluded.replied_at`,
    [[...new Set(rows.map(({ event }) => event))]],
  );
}

/** Makes every published row due now, since its reply may have been lost in the meantime. */
export async function makeDue(db: Database, events: readonly string[]): Promise<void> {
  await db.query(
    `insert into outbox_events (event, due_before) select event, now() from unnest($1::text[]) as e (event) order by event
     on conflict (event) do update set due_before = excluded.due_before`,
    [events],
  );
}
