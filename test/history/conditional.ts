import { isSighting, type Facts, type ProductCall } from "./facts";
import { Findings } from "./findings";
import { latestOf, unchangedDuring } from "./products";

/**
 * Updates with `If-Match`: a successful one creates the version after the one it names (every change increments a product's version by one), so of
 * several that name the same version, at most one succeeds; a 412 is right only if the current version may have been another.
 */
export function checkConditional({ products }: Facts): Findings {
  const findings = new Findings("conditional updates");
  for (const { id, calls } of products.values()) {
    const latest = latestOf(calls.filter(isSighting));
    const winners = new Map<number, ProductCall>();
    for (const call of calls) {
      if (call.kind !== "product.patch") continue;
      const { if_match, seen, status } = call;
      if (status === 412 && if_match === undefined) findings.add(`a PATCH of product ${id} without If-Match is refused with 412`, call);
      if (if_match === undefined) continue;
      if (status === 412) {
        const [before, after] = unchangedDuring(call, latest) ?? [];
        if (before?.seen.version === if_match)
          findings.add(
            `a PATCH of product ${id} that names version ${if_match} is refused, although that was the current one`,
            before,
            after,
            call,
          );
      }
      if (seen === undefined) continue;
      const winner = winners.get(if_match);
      if (winner !== undefined) findings.add(`two updates of product ${id} that name version ${if_match} both succeed`, winner, call);
      winners.set(if_match, call);
      const before = latest.before(call.begin);
      if (before !== undefined && before.seen.version > if_match)
        findings.add(
          `an update of product ${id} that names version ${if_match} succeeds after version ${before.seen.version} was seen`,
          before,
          call,
        );
      else if (seen.version !== if_match + 1)
        findings.add(
          `an update of product ${id} that names version ${if_match} makes version ${seen.version}: another change came between`,
          call,
        );
    }
  }
  return findings;
}
