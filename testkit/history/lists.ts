import { isFinal } from "../../contracts/orders";
import { getOrCreate, type Facts, type OrderFacts } from "./facts";
import { Findings } from "./findings";
import type { Of } from "./operation";
import { has } from "./progress";

/**
 * Checks walks, that is, lists read page by page from the first page on:
 * - they are sorted: orders by (created_at, id), newest first; products by the requested key;
 * - no item occurs twice, and every own order that was acknowledged before the walk began occurs, as far as the walk went. With a final status
 *   as filter, orders that had this status before must occur; with another status none must, since orders may have left it;
 * - items have the requested status or seller.
 *
 * The statuses of items count as sightings, too (see orders). If sorted by price, products may move between pages while prices change: then only
 * each page is sorted, and only products whose price never changed must occur exactly once. The versions of items in lists are unknown.
 */
export function checkLists(facts: Facts): Findings {
  const findings = new Findings("lists");
  const walks = new Map<string, Of<"order.list">[]>();
  for (const operation of facts.operations) {
    if (operation.kind === "product.list") checkProductList(operation, facts, findings);
    if (operation.kind !== "order.list") continue;
    checkOrderList(operation, findings);
    if (operation.outcome === "ok") getOrCreate(walks, operation.user, () => []).push(operation);
  }
  const own = new Map<string, OrderFacts[]>();
  for (const order of facts.orders.values()) if (order.placed !== undefined) getOrCreate(own, order.placed.user, () => []).push(order);
  for (const [user, all] of walks) checkContents(all, own.get(user) ?? [], findings);
  return findings;
}

/** A position in a list sorted by age. */
interface Place {
  id: string;
  created: number;
}

/** Whether `a` comes before `b`, oldest first. Ids are compared as PostgreSQL compares UUIDs. */
const isBefore = (a: Place, b: Place): boolean => a.created < b.created || (a.created === b.created && a.id < b.id);

function checkOrderList(walk: Of<"order.list">, findings: Findings): void {
  const items = walk.pages.flatMap((page) => page.items);
  checkOnce(walk, items, "order", findings);
  checkSorted(walk, items, "order", (a, b) => isBefore(b, a), findings);
  const strange = walk.filter && items.find(({ status }) => status !== walk.filter);
  if (strange) findings.add(`a list of ${walk.filter} orders has order ${strange.id}, which is ${strange.status}`, walk);
}

/**
 * Compares each walk of a user with the orders acknowledged before it, from the newest order to the last one that the walk reached.
 */
function checkContents(walks: Of<"order.list">[], orders: OrderFacts[], findings: Findings): void {
  walks.sort((a, b) => a.begin - b.begin);
  orders.sort((a, b) => a.placedAt - b.placedAt);
  const acknowledged: { place: Place; order: OrderFacts }[] = []; // oldest first
  let next = 0;
  for (const walk of walks) {
    for (let order = orders[next]; order !== undefined && order.placedAt < walk.begin; order = orders[++next]) {
      const place = { id: order.id, created: order.placed?.seen?.created ?? -Infinity };
      let i = acknowledged.length; // it is usually the newest
      while (i > 0 && isBefore(place, acknowledged[i - 1]?.place ?? place)) i--;
      acknowledged.splice(i, 0, { place, order });
    }
    const { filter, complete } = walk;
    if (filter !== undefined && !isFinal(filter)) continue; // orders may have left this status
    const ids = new Set(walk.pages.flatMap(({ items }) => items.map(({ id }) => id)));
    const last = walk.pages.at(-1)?.items.at(-1);
    for (let i = acknowledged.length - 1, one = acknowledged[i]; one !== undefined; one = acknowledged[--i]) {
      const { place, order } = one;
      if (!complete && (last === undefined || !isBefore(last, place))) break; // older than the last item read
      if (ids.has(order.id)) continue;
      if (filter !== undefined && !order.happenings.some(({ at, value }) => at < walk.begin && has(value, filter))) continue;
      findings.add(`the list of ${walk.user} lacks order ${order.id}, which was ${filter ?? "acknowledged"} before`, order.placed, walk);
    }
  }
}

function checkProductList(walk: Of<"product.list">, { products }: Facts, findings: Findings): void {
  const { sort = "created_at", seller, complete, outcome } = walk;
  const items = walk.pages.flatMap((page) => page.items);
  const isByAge = sort.endsWith("created_at");
  const isDescending = sort.startsWith("-");
  if (isByAge) checkSorted(walk, items, "product", (a, b) => (isDescending ? isBefore(b, a) : isBefore(a, b)), findings);
  else
    for (const page of walk.pages)
      checkSorted(walk, page.items, "product", (a, b) => a.price === b.price || a.price < b.price !== isDescending, findings);

  const isFixed = (id: string): boolean =>
    isByAge || products.get(id)?.calls.every((call) => call.kind !== "product.patch" || call.outcome === "failed") === true;
  const ids = checkOnce(
    walk,
    items.filter(({ id }) => isFixed(id)),
    "product",
    findings,
  );
  for (const { id } of items) {
    const owner = products.get(id)?.create?.user;
    if (seller !== undefined && owner !== undefined && owner !== seller)
      findings.add(`the products of ${seller} list product ${id} of ${owner}`, walk);
  }
  if (!complete || outcome !== "ok") return;
  for (const { id, create } of products.values()) {
    if (create?.end === undefined || create.end >= walk.begin || (seller !== undefined && create.user !== seller)) continue;
    if (isFixed(id) && !ids.has(id)) findings.add(`a list lacks product ${id}, which was created before`, create, walk);
  }
}

type Walk = Of<"order.list" | "product.list">;

function checkOnce(walk: Walk, items: readonly { id: string }[], thing: string, findings: Findings): Set<string> {
  const ids = new Set<string>();
  for (const { id } of items) {
    if (ids.has(id)) findings.add(`a list has ${thing} ${id} twice`, walk);
    ids.add(id);
  }
  return ids;
}

function checkSorted<T extends { id: string }>(
  walk: Walk,
  items: readonly T[],
  thing: string,
  isSorted: (a: T, b: T) => boolean,
  findings: Findings,
): void {
  for (const [i, item] of items.entries()) {
    const before = items[i - 1];
    if (before !== undefined && before.id !== item.id && !isSorted(before, item))
      findings.add(`a list has ${thing} ${item.id} behind ${before.id}, against the sort order`, walk);
  }
}
