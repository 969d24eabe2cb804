/**
 * What was known at each moment: values folded in the order of their times. A look-up takes O(log n).
 * To look up what became known after a moment, use negated times for entries and look-ups.
 */
export class Known<T> {
  private readonly times: Float64Array;
  private readonly folded: T[] = [];

  /** @param entries in any order @param fold combines what was known before with the next value */
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

  /** What was known before a moment; excludes the moment itself, since clocks are coarse. */
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
