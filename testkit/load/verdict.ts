import { messageOf } from "../error-message";
import type { Shop } from "../system/system";
import { eventually } from "../until";
import { checkClientHistory } from "./history";
import type { Load } from "./load";
import type { Losses } from "./losses";

interface Report {
  ok: boolean;
  checks: { name: string; ok: boolean; violations: number; sample: string[] }[];
}

const MAX_RETRIED = 15; // number of keys to send once more after a fault

export const pendingRows = (shop: Shop): Promise<{ id: number }[]> =>
  shop.sql("orders", "select id from outbox where state = 'PENDING' limit 1");

/** Waits until all orders accepted before the end of the fault are decided and a later order is confirmed. @returns how long that took, ms */
export async function recovered(shop: Shop, load: Load, end: number, ms: number): Promise<number> {
  await eventually(
    "the shop has settled all older orders and confirms new ones",
    async () => {
      const [row] = await shop.sql<{ left: number; confirmed: boolean }>(
        "orders",
        `select (select count(*)::int from outbox where state = 'PENDING' and created_at < to_timestamp($1)) as left,
           exists (select from orders where status = 'CONFIRMED' and created_at > to_timestamp($1)) as confirmed`,
        [end / 1000],
      );
      return row?.left === 0 && row.confirmed && [...load.orders.values()].some((order) => order.at > end && order.status === 201);
    },
    ms,
    100,
  );
  return Date.now() - end;
}

/** Waits until nothing is pending, then checks the shop's own audit, the clients' records and the whole history. @returns violations */
export async function verify(shop: Shop, load: Load, quietMs: number): Promise<string[]> {
  const violations: string[] = [];
  await eventually("no outbox row is pending", async () => (await pendingRows(shop)).length === 0, quietMs, 100).catch((error: unknown) =>
    violations.push(`still busy: ${messageOf(error)}`),
  );
  const isQuiet = violations.length === 0;
  const withResponse = [...load.orders.values()].filter((order) => order.status !== undefined);
  const retried = withResponse
    .slice(-400)
    .sort((a, b) => b.attempts - a.attempts)
    .slice(0, MAX_RETRIED);
  await Promise.all(retried.filter((order) => order.status === 201).map((order) => load.repeat(order)));
  violations.push(...(await audit(load)), ...(await compareOrders(shop, load)), ...(await compareStock(shop, load)));
  violations.push(...(await checkClientHistory(shop, load, isQuiet)));
  return violations;
}

async function audit(load: Load): Promise<string[]> {
  const response = await load.asAdmin("GET", "/admin/consistency");
  if (response?.status !== 200) return [`the audit failed: ${response?.status ?? "no response"} ${response?.body ?? ""}`];
  const report = JSON.parse(response.body) as Report;
  return report.checks
    .filter((check) => !check.ok)
    .map(({ name, violations, sample }) => `audit: ${name}: ${violations}, ${sample.slice(0, 3).join("; ")}`);
}

/**
 * Every order with a 201 exists and is decided, every refused one does not exist, and every accepted cancel has been done.
 * What a restored database may have lost is only counted.
 */
async function compareOrders(shop: Shop, { orders: records, losses }: Load): Promise<string[]> {
  const rows = await shop.sql<{ id: string; idempotency_key: string; status: string; parked: boolean }>(
    "orders",
    `select id, idempotency_key, status, exists (select from outbox x where x.subject = o.id and x.state = 'PARKED') as parked from orders o`,
  );
  const orders = new Map(rows.map((row) => [row.idempotency_key, row]));
  const count = (what: keyof Losses["counts"]): string[] => {
    losses.counts[what]++;
    return [];
  };
  return [...records.values()].flatMap((record) => {
    const order = orders.get(record.key);
    const name = `order ${record.id ?? "?"} (key ${record.key})`;
    if (record.status === undefined) return [];
    if (record.status !== 201) return order ? [`${name} was refused with ${record.status}, but exists as ${order.id}`] : [];
    if (order === undefined) return losses.mayHave("orders", record) ? count("orders") : [`${name} had a 201 and does not exist`];
    if (order.id !== record.id) return [`${name} exists as ${order.id}`];
    if (order.status === "PENDING") return order.parked ? [] : [`${name} is still PENDING`];
    if (record.cancel?.status === 200 && order.status !== "CANCELLED")
      return losses.mayHave("orders", record.cancel) ? count("cancels") : [`${name} was cancelled with 200 and is ${order.status}`];
    if (record.cancel?.status === 409 && order.status !== "REJECTED")
      return [`the cancel of ${name} was refused, and it is ${order.status}`];
    return [];
  });
}

/** For each product: initial quantity + adjustments = current quantity + units of confirmed orders. */
async function compareStock(shop: Shop, load: Load): Promise<string[]> {
  const violations: string[] = [];
  const movements = await shop.sql<{ reason: string; product_id: string; delta: string }>(
    "products",
    "select reason, product_id, delta from stock_movements where kind = 'ADJUSTMENT'",
  );
  for (const adjustment of load.adjustments) {
    const { reason, status, delta } = adjustment;
    const times = movements.filter((movement) => movement.reason === reason).length;
    const right = status === undefined ? times <= 1 : times === (status === 200 ? 1 : 0);
    if (!right && times === 0 && load.losses.mayHave("products", adjustment)) load.losses.counts.adjustments++;
    else if (!right) violations.push(`an adjustment of ${delta} with the response ${status ?? "unknown"} was applied ${times} times`);
  }
  const stock = await shop.sql<{ id: string; quantity: string }>("products", "select id, quantity from products");
  const confirmed = await shop.sql<{ id: string; units: string }>(
    "orders",
    "select l.product_id as id, sum(l.quantity) as units from order_lines l join orders o on o.id = l.order_id where o.status = 'CONFIRMED' group by 1",
  );
  for (const [id, initial] of load.products) {
    const adjusted = movements.filter((movement) => movement.product_id === id).reduce((sum, { delta }) => sum + Number(delta), 0);
    const quantity = Number(stock.find((row) => row.id === id)?.quantity ?? NaN);
    const sold = Number(confirmed.find((row) => row.id === id)?.units ?? 0);
    if (quantity < 0 || initial + adjusted !== quantity + sold)
      violations.push(`product ${id}: ${initial} at first, ${adjusted} adjusted, ${sold} sold, but ${quantity} left`);
  }
  return violations;
}
