import { BUSIEST, type BusyProduct } from "../../contracts/operations";
import type { Database } from "../../mixins/database";

/** Maximum number of movements that are read. If there were more in the last minute, only the newest are counted (contracts/operations.ts). */
const COUNTED = 5_000;

/** The products of which most units were reserved in the last minute. Costs the same however long the ledger is. */
export function readBusiest(db: Database): Promise<BusyProduct[]> {
  return db.query<BusyProduct>(
    `with recent as (
       select product_id, kind, delta, created_at from stock_movements order by id desc limit $1
     ), sold as (
       select product_id, sum(-delta)::bigint as units from recent where kind = 'RESERVE' and created_at > now() - interval '1 minute'
       group by product_id order by units desc, product_id limit $2
     )
     select p.id as product_id, p.name, p.quantity, sold.units as sold from sold join products p on p.id = sold.product_id
     order by sold.units desc, p.id`,
    [COUNTED, BUSIEST],
  );
}
