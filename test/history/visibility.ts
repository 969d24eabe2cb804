import type { Facts, OrderFacts } from "./facts";
import { Findings } from "./findings";

/**
 * Own writes, through any gateway: an order whose 201 was read is found by its owner from then on; what is of others is never shown to anybody but
 * admins, in no response, list or stream, and only sellers and admins change a product.
 *
 * The owner is who placed the order; where no placing is known, whoever saw it first.
 */
export function checkVisibility({ orders, products }: Facts): Findings {
  const findings = new Findings("own writes");
  for (const order of orders.values()) checkOrder(order, findings);
  for (const { id, create, calls } of products.values())
    for (const call of calls)
      if (create && (call.kind === "product.patch" || call.kind === "product.adjust"))
        if (call.outcome === "ok" && call.user !== create.user && call.admin !== true)
          findings.add(`product ${id} is changed by ${call.user || "nobody"}, who does not sell it`, create, call);
  return findings;
}

function checkOrder(order: OrderFacts, findings: Findings): void {
  const { placed, placedAt } = order;
  const lists = order.sightings.flatMap(({ by }) => (by.kind === "order.list" ? [by] : []));
  let owner = placed?.user;
  for (const call of [...order.calls, ...lists]) {
    if (call.admin === true && call.kind !== "order.list") continue; // lists are of one's own orders, an admin's too
    if (call.outcome === "ok") {
      owner ??= call.user;
      if (call.user !== owner) findings.add(`order ${order.id} of ${owner} is shown to ${call.user || "nobody"}`, placed, call);
    } else if (call.status === 404 && call.user === owner && placedAt < call.begin)
      findings.add(`order ${order.id} is not found by its owner after its 201`, placed, call);
  }
}
