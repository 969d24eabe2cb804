import type { Facts, OrderFacts } from "./facts";
import { Findings } from "./findings";

/**
 * Visibility through any gateway: once its 201 was read, an order is found by its owner; other users' orders are shown only to admins, in responses,
 * lists and streams alike; and only sellers and admins change a product.
 *
 * The owner is the user who placed the order or, if no POST /orders is known, the user who saw it first.
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
    if (call.admin === true && call.kind !== "order.list") continue; // a list contains only the caller's own orders, even for an admin
    if (call.outcome === "ok") {
      owner ??= call.user;
      if (call.user !== owner) findings.add(`order ${order.id} of ${owner} is shown to ${call.user || "nobody"}`, placed, call);
    } else if (call.status === 404 && call.user === owner && placedAt < call.begin)
      findings.add(`order ${order.id} is not found by its owner after its 201`, placed, call);
  }
}
