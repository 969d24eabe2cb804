import type { Status } from "../../contracts/orders";
import type { Database } from "../../mixins/database";
import { NEXT, RESERVATION_EVENTS } from "./order";

/** The transitions of the state machine as SQL: `('PENDING', 'CONFIRMED'), …`. */
const MOVES = Object.entries(NEXT)
  .flatMap(([from, tos]) => tos.map((to) => `('${from}', '${to}')`))
  .join(", ");

/** Each select finds violations of an invariant that order_db can check on its own. */
export const CHECKS: Readonly<Record<string, string>> = {
  "every order has its lines and its history": `
    select 'order ' || o.id as what from orders o
    where not exists (select from order_lines l where l.order_id = o.id) or not exists (select from order_history h where h.order_id = o.id)`,
  "a pending order has an unsettled outbox row": `
    select 'order ' || o.id as what from orders o
    where o.status = 'PENDING' and not exists (
      select from outbox x where x.subject = o.id and x.event = 'order.created' and x.state <> 'SETTLED')`,
  "the total is the sum of its lines": `
    select 'order ' || o.id || ': ' || o.total_cents || ', lines ' || l.total as what
    from orders o join (select order_id, sum(unit_price_cents * quantity) as total from order_lines group by order_id) l on l.order_id = o.id
    where l.total <> o.total_cents`,
  "history follows the state machine and ends in the status": `
    select 'order ' || o.id || ': ' || string_agg(coalesce(h.before, '') || '>' || h.status, ' ' order by h.id) || ' is ' || o.status as what
    from orders o join (
      select id, order_id, status,
        lag(status) over w as before, lag(at) over w as earlier, at, lead(id) over w is null as is_last
      from order_history window w as (partition by order_id order by id)
    ) h on h.order_id = o.id
    group by o.id
    having not bool_and(
      case when h.before is null then h.status = 'PENDING' else (h.before, h.status) in (${MOVES}) and h.earlier <= h.at end
      and (not h.is_last or h.status = o.status))`,
};

export interface AuditedOrder {
  id: string;
  status: Status;
  /** Of the RESERVATION_EVENTS. PENDING: a row still waits for its reply, so products may differ for now. PARKED: none is pending, but one is parked. */
  outbox: "PENDING" | "PARKED" | null;
  /** In the format of `textOf`. */
  lines: string;
}

/** The id of the nth order before the given one; undefined if there are fewer. */
export async function nthBefore(db: Database, before: string, nth: number): Promise<string | undefined> {
  const [row] = await db.query<{ id: string }>("select id from orders where id < $1 order by id desc offset $2 limit 1", [before, nth - 1]);
  return row?.id;
}

/** The orders after one id, up to and including another. Joined by range: a subquery per order takes eight times as long. */
export function ordersBetween(db: Database, after: string, upto: string): Promise<AuditedOrder[]> {
  return db.query<AuditedOrder>(
    `select o.id, o.status, x.state as outbox, coalesce(l.lines, '') as lines
     from orders o
     left join (
       select subject, max(state) as state from outbox -- PENDING comes last
       where subject > $1 and subject <= $2 and event = any($3) and state <> 'SETTLED' group by subject
     ) x on x.subject = o.id
     left join (
       select order_id, string_agg(product_id || ':' || quantity, ',' order by product_id) as lines
       from order_lines where order_id > $1 and order_id <= $2 group by order_id
     ) l on l.order_id = o.id
     where o.id > $1 and o.id <= $2`,
    [after, upto, RESERVATION_EVENTS],
  );
}

interface Start {
  checked_at: Date;
  in_flight: number;
  parked: number;
  /** Seconds. */
  oldest: number | null;
}

/** The state of the outbox when the audit starts. */
export async function start(db: Database): Promise<Start> {
  const [row] = await db.query<Start>(
    `select now() as checked_at,
       count(distinct subject) filter (where state = 'PENDING') as in_flight,
       count(*) filter (where state = 'PARKED') as parked,
       extract(epoch from now() - min(created_at) filter (where state = 'PENDING'))::float8 as oldest
     from outbox where state <> 'SETTLED'`,
  );
  if (row === undefined) throw new Error("an aggregate returned no row");
  return row;
}
