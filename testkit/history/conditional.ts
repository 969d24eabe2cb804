import { isSighting, type Facts, type ProductCall } from "./facts";
import { Findings } from "./findings";
import { latestOf } from "./products";

/**
 * Updates with `If-Match`, which names the edits of a product: a successful one creates the edits after those it names (every update increments them
 * by one, a change of the stock does not), so of several that name the same edits, at most one succeeds; a 412 is right only if the current edits may
 * have been others.
 */
export function checkConditional({ products }: Facts): Findings {
  const findings = new Findings("conditional updates");
  for (const { id, calls } of products.values()) {
    const latest = latestOf(calls.filter(isSighting));
    const winners = new Map<number, ProductCall>();
    for (const call of calls) {
      if (call.kind !== "product.patch") continue;
      const { if_match, seen, status, begin, end = Infinity } = call;
      if (status === 412 && if_match === undefined) findings.add(`a PATCH of product ${id} without If-Match is refused with 412`, call);
      if (if_match === undefined) continue;
      const [before, after] = [latest.before(begin), latest.after(end)];
      if (status === 412 && before?.seen.edits === if_match && after?.seen.edits === if_match)
        findings.add(
          `a PATCH of product ${id} that names edits ${if_match} is refused, although those were the current ones`,
          before,
          after,
          call,
        );
      if (seen === undefined) continue;
      const winner = winners.get(if_match);
      if (winner !== undefined) findings.add(`two updates of product ${id} that name edits ${if_match} both succeed`, winner, call);
      winners.set(if_match, call);
      if (before !== undefined && before.seen.edits > if_match)
        findings.add(
          `an update of product ${id} that names edits ${if_match} succeeds after edits ${before.seen.edits} were seen`,
          before,
          call,
        );
      else if (seen.edits !== if_match + 1)
        findings.add(`an update of product ${id} that names edits ${if_match} makes edits ${seen.edits}: another one came between`, call);
    }
  }
  return findings;
}
