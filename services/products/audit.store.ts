import type { Result } from "../../contracts/contract";
import { RESERVED_LINES_PER_CALL, type AuditCheck, type Reservation, type reservations } from "../../contracts/products";
import { runChecks } from "../../mixins/audit";
import type { Database } from "../../mixins/database";

/** Each select finds violations of an invariant. */
const CHECKS: Record<string, string> = {
  "quantity is the sum of its movements": `
    select 'product ' || p.id || ': quantity ' || p.quantity || ', movements ' || coalesce(m.total, 0) as what
    from products p left join (select product_id, sum(delta) as total from stock_movements group by product_id) m on m.product_id = p.id
    where p.quantity <> coalesce(m.total, 0)`,
  "quantity is never below zero": `
    select 'product ' || id || ': ' || quantity as what from products where quantity < 0
    union all select 'movement ' || id || ': balance ' || balance from stock_movements where balance < 0`,
  "sold_out_products lists exactly the products that are sold out": `
    select 'product ' || p.id as what from products p left join sold_out_products s on s.product_id = p.id
    where (p.sold_out and p.archived_at is null) is distinct from (s.product_id is not null)`,
  "a reservation's movements are its lines": `
    select 'order ' || coalesce(e.order_id, m.order_id) || ', product ' || coalesce(e.product_id, m.product_id) as what
    from (
      select r.order_id, l.product_id, k.kind, l.quantity * k.sign as delta
      from reservations r
      cross join jsonb_to_recordset(r.lines) as l (product_id uuid, quantity bigint)
      join (values ('RESERVE', -1), ('RELEASE', 1)) as k (kind, sign)
        on r.state = 'RESERVED' and k.kind = 'RESERVE' or r.state = 'RELEASED'
    ) e
    full join (select order_id, product_id, kind, delta from stock_movements where order_id is not null) m
      on (m.order_id, m.product_id, m.kind) = (e.order_id, e.product_id, e.kind)
    where e.delta is distinct from m.delta`,
};

/** Checks every invariant that product_db can check on its own. */
export const auditProducts = (db: Database): Promise<AuditCheck[]> => runChecks(db, CHECKS);

/** The first of these reservations, up to what fits into one message; the database does not send the others. */
export async function reservationsOf(db: Database, after: string, upto: string): Promise<Result<typeof reservations>> {
  const items = await db.query<Reservation>(
    `select order_id, state, lines from (
       select order_id, state, lines, sum(jsonb_array_length(lines)) over (order by order_id) - jsonb_array_length(lines) as lines_before
       from (select order_id, state, lines from reservations where order_id > $1 and order_id <= $2 order by order_id limit 10000) as found
     ) as counted where lines_before < $3 order by order_id`,
    [after, upto, RESERVED_LINES_PER_CALL],
  );
  const last = items.at(-1)?.order_id;
  if (last === undefined) return { items, next: null };
  const [more] = await db.query("select 1 from reservations where order_id > $1 and order_id <= $2 limit 1", [last, upto]);
  return { items, next: more === undefined ? null : last };
}
