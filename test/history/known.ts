/**
 * What was known at each moment: values folded in the order of the times by which they were known. Finding one takes log n.
 * For what became known later than a moment, add and ask with negated times.
 */
export class Known<T> {
  private readonly times: Float64Array;
  private readonly folded: T[] = [];

  /** @param entries in any order; @param fold of what was known before and what comes to it */
  constructor(
    entries: readonly { at: number; value: T }[],
    private readonly none: T,
    fold: (known: T, value: T) => T,
  ) {
    const sorted = [...entries].sort((a, b) => a.at - b.at);
    this.times = Float64Array.from(sorted, ({ at }) => at);
    let known = none;
    for (const { value } of sorted) this.folded.push((known = fold(known, value)));
  }

  /** Of what was known before a moment; not at it, for clocks are coarse. */
  before(moment: number): T {
    let low = 0;
    let high = this.times.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.times[middle] ?? Infinity) < moment) low = middle + 1;
      else high = middle;
    }
    return low === 0 ? this.none : (this.folded[low - 1] ?? this.none);
  }
}
