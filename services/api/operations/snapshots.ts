import { withRequest } from "../../../broker/request";
import type { Snapshot } from "../../../contracts/operations";

/** Interval of the snapshots, in ms. */
const EVERY_MS = 1_000;

type Show = (text: string) => void;

/**
 * Takes snapshots of the shop while somebody is watching: one per second, however many are. The next one is taken only after the one before,
 * so a slow service delays snapshots but does not pile up calls.
 */
export class Snapshots {
  private readonly watchers = new Set<Show>();
  private timer: NodeJS.Timeout | undefined;
  /** The last one, for those who begin to watch before the next. */
  private latest: string | undefined;

  /** @param take never rejects */
  constructor(private readonly take: () => Promise<Snapshot>) {}

  /** @param show gets every snapshot as JSON, the first one as soon as possible @returns a function that ends it */
  watch(show: Show): () => void {
    this.watchers.add(show);
    if (this.watchers.size === 1) this.schedule(0);
    else if (this.latest !== undefined) show(this.latest);
    return () => {
      this.watchers.delete(show);
      if (this.watchers.size > 0) return;
      clearTimeout(this.timer);
      this.timer = undefined;
      this.latest = undefined;
    };
  }

  private schedule(afterMs: number): void {
    clearTimeout(this.timer);
    // Not part of the request that began to watch first: the snapshots are for all.
    const timer = setTimeout(() => void withRequest(undefined, Infinity, () => this.showAll(timer)), afterMs);
    this.timer = timer;
  }

  private async showAll(timer: NodeJS.Timeout): Promise<void> {
    const since = performance.now();
    const text = JSON.stringify(await this.take());
    if (this.timer !== timer) return; // nobody has been watching since, or others have begun to
    this.latest = text;
    for (const show of this.watchers) show(text);
    this.schedule(Math.max(0, EVERY_MS - (performance.now() - since)));
  }
}
