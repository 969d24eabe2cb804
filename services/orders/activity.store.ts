import { COUNTED_ORDERS, type OrderActivity } from "../../contracts/operations";
import type { Status } from "../../contracts/orders";
import type { Database } from "../../mixins/database";

/** Maximum number of changes that are read for the rates. If there were more in the last ten seconds, the rates are of a shorter time. */
const COUNTED_CHANGES = 5_000;

/** How many orders got each status per second, and how many of the newest ones have it. Costs the same however many orders there are. */
const ACTIVITY = `
  with recent as (
    select status, at from order_history order by id desc limit ${COUNTED_CHANGES}
  ), span as (
    select case when count(*) < ${COUNTED_CHANGES} then 10 else least(10, greatest(1, extract(epoch from now() - min(at)))) end::float8 as seconds
    from recent
  ), rates as (
    select status, count(*) / (select seconds from span) as per_second from recent
    where at > now() - (select seconds from span) * interval '1 s' group by status
  ), newest as (
    select status, count(*)::int as orders from (select status from orders order by created_at desc, id desc limit ${COUNTED_ORDERS}) as o
    group by status
  )
  select s.status, coalesce(r.per_second, 0) as per_second, coalesce(n.orders, 0) as orders
  from unnest(array['PENDING', 'CONFIRMED', 'REJECTED', 'CANCELLED']) as s (status)
  left join rates r on r.status = s.status left join newest n on n.status = s.status`;

export async function readActivity(db: Database): Promise<Pick<OrderActivity, "per_second" | "newest">> {
  const rows = await db.query<{ status: Status; per_second: number; orders: number }>(ACTIVITY, []);
  const by = (value: (row: (typeof rows)[number]) => number): Record<Status, number> => {
    const values = { PENDING: 0, CONFIRMED: 0, REJECTED: 0, CANCELLED: 0 };
    for (const row of rows) values[row.status] = value(row);
    return values;
  };
  return { per_second: by((row) => Math.round(row.per_second * 10) / 10), newest: by((row) => row.orders) };
}
