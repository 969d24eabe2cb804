import { isSighting, mayHaveHappened, type Facts, type ProductCall, type ProductFacts, type ProductSighting } from "./facts";
import { Findings } from "./findings";
import { Known } from "./known";

/**
 * Each product is a non-negative counter, ordered by its version:
 * - no quantity is negative; a version has one quantity and one price, and no two writes create the same version;
 * - a request that begins after a version was seen shows that version or a later one, and a write creates a later one;
 * - an adjustment changes the previous version's quantity by its delta and keeps the price; a PATCH sets the price and keeps the quantity; nothing
 *   else changes the price;
 * - a created product is found; a withdrawal is refused only if the stock may have been insufficient.
 *
 * Not checked: the number of versions (they only have to grow), a product's other fields, and DELETE, which histories don't contain.
 */
export function checkProducts({ products, operations }: Facts): Findings {
  const findings = new Findings("products");
  for (const product of products.values()) {
    const sightings = product.calls.filter(isSighting);
    const latest = latestOf(sightings);
    checkOrder(sightings, latest, findings);
    checkContents(product, sightings, findings);
    checkRefusals(product, latest, findings);
  }
  for (const operation of operations)
    if (operation.kind === "product.list")
      for (const { id, quantity } of operation.pages.flatMap(({ items }) => items))
        if (quantity < 0) findings.add(`product ${id} is listed with the quantity ${quantity}`, operation);
  return findings;
}

interface Latest {
  /** The greatest version seen before a moment. */
  before(moment: number): ProductSighting | undefined;
  /** The smallest version seen by requests that began after a moment. */
  after(moment: number): ProductSighting | undefined;
}

/** Looks up which version of a product was known when. */
export function latestOf(sightings: readonly ProductSighting[]): Latest {
  const earlier = new Known<ProductSighting | undefined>(
    sightings.map((value) => ({ at: value.end, value })),
    undefined,
    (known, value) => (known && value && known.seen.version >= value.seen.version ? known : value),
  );
  const later = new Known<ProductSighting | undefined>(
    sightings.map((value) => ({ at: -value.begin, value })),
    undefined,
    (known, value) => (known && value && known.seen.version <= value.seen.version ? known : value),
  );
  return { before: (moment) => earlier.before(moment), after: (moment) => later.before(-moment) };
}

/** The sightings of the version that a product had during a whole call; undefined if it may have changed. */
function unchangedDuring({ begin, end = Infinity }: ProductCall, latest: Latest): [ProductSighting, ProductSighting] | undefined {
  const [before, after] = [latest.before(begin), latest.after(end)];
  return before && after && before.seen.version === after.seen.version ? [before, after] : undefined;
}

export const isWrite = ({ kind }: ProductCall): boolean => kind === "product.patch" || kind === "product.adjust";

function checkOrder(sightings: readonly ProductSighting[], latest: Latest, findings: Findings): void {
  for (const call of sightings) {
    const before = latest.before(call.begin);
    if (before === undefined) continue;
    const { id, version } = call.seen;
    if (version < before.seen.version)
      findings.add(`product ${id} is read in version ${version} after version ${before.seen.version} was seen`, before, call);
    else if (version === before.seen.version && isWrite(call))
      findings.add(`a write to product ${id} makes version ${version}, which was seen before the write began`, before, call);
  }
}

function checkContents(product: ProductFacts, sightings: readonly ProductSighting[], findings: Findings): void {
  const versions = new Map<number, ProductSighting>();
  const writes = new Map<number, ProductSighting>();
  for (const call of sightings) {
    const { version, quantity, price } = call.seen;
    if (quantity < 0) findings.add(`product ${product.id} has the quantity ${quantity}`, call);
    const known = versions.get(version);
    if (known === undefined) versions.set(version, call);
    else if (known.seen.quantity !== quantity || known.seen.price !== price)
      findings.add(
        `version ${version} of product ${product.id} shows quantity ${known.seen.quantity} and price ${known.seen.price}, then ${quantity} and ${price}`,
        known,
        call,
      );
    if (!isWrite(call) && call.kind !== "product.create") continue;
    const other = writes.get(version);
    if (other !== undefined) findings.add(`two writes of product ${product.id} both made version ${version}`, other, call);
    writes.set(version, call);
  }
  for (const [version, call] of writes) checkStep(call, versions.get(version - 1), findings);
  checkPrices(product, new Map([...versions, ...writes]), findings);
}

/** Compares the result of a write with the previous version. */
function checkStep(call: ProductSighting, before: ProductSighting | undefined, findings: Findings): void {
  const { id, version, quantity, price } = call.seen;
  if (call.kind === "product.patch" && price !== call.price)
    findings.add(`a PATCH of product ${id} to price ${call.price} returns price ${price}`, call);
  if (before === undefined) return;
  const delta = call.kind === "product.adjust" ? call.delta : 0;
  if (before.seen.quantity + delta !== quantity)
    findings.add(
      `version ${version - 1} of product ${id} has ${before.seen.quantity} units; changed by ${delta} it has ${quantity}`,
      before,
      call,
    );
}

/** Only a PATCH changes the price: each version has the price of the last known PATCH, or of one with unknown outcome. */
function checkPrices(product: ProductFacts, versions: ReadonlyMap<number, ProductSighting>, findings: Findings): void {
  if (product.create === undefined) return; // there may have been earlier changes
  const unknown = new Map<number, number>(); // price → when the first PATCH with it began
  for (const call of product.calls)
    if (call.kind === "product.patch" && call.outcome === "unknown")
      unknown.set(call.price, Math.min(call.begin, unknown.get(call.price) ?? Infinity));
  let last: ProductSighting | undefined;
  for (const [version, call] of [...versions].sort(([a], [b]) => a - b)) {
    if (call.kind === "product.create" || call.kind === "product.patch") last = call;
    if (last === undefined || call.seen.price === last.seen.price || (unknown.get(call.seen.price) ?? Infinity) <= call.end) continue;
    findings.add(`version ${version} of product ${product.id} has the price ${call.seen.price}, which no request set`, last, call);
  }
}

function checkRefusals({ id, create, calls }: ProductFacts, latest: Latest, findings: Findings): void {
  for (const call of calls) {
    if (mayHaveHappened(call)) continue;
    if (call.status === 404 && create?.end !== undefined && create.end < call.begin)
      findings.add(`product ${id} is not found after it was created`, create, call);
    if (call.kind !== "product.adjust" || call.code !== "INSUFFICIENT_STOCK") continue;
    const [before, after] = unchangedDuring(call, latest) ?? [];
    if (before !== undefined && before.seen.quantity + call.delta >= 0)
      findings.add(
        `taking ${-call.delta} of the ${before.seen.quantity} units of product ${id} is refused for lack of stock`,
        before,
        after,
        call,
      );
  }
}
