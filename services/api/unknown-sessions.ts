import { LRUCache } from "lru-cache";
import { SESSIONS_PER_CALL } from "../../contracts/users";

/** Milliseconds after which users is asked about a session that was seen, together with all others of that time. */
const INTERVAL = 1_000;
/** Most sessions that wait to be asked about; others are when they are seen again. */
const MAX_SEEN = 50_000;
const MAX_REMEMBERED = 10_000;

/**
 * The sessions that users does not know: a backup of its database that was restored has lost them, and nobody could end them. It is asked
 * once a second about those that were seen, apart from what has ended, which must not wait for it. One that was unknown is asked
 * about again when it is seen again: a backup that is being restored may have it a moment later.
 */
export class UnknownSessions {
  private seen = new Set<string>();
  private readonly unknown = new LRUCache<string, true>({ max: MAX_REMEMBERED });
  private timer: NodeJS.Timeout | undefined;
  private isStopped = false;

  /** @param ask gives the unknown ones of some sessions */
  constructor(private readonly ask: (sessions: string[]) => Promise<readonly string[]>) {}

  /** Whether users did not know it when it was last asked, which it is again soon. */
  has(session: string): boolean {
    if (this.seen.size < MAX_SEEN) this.seen.add(session);
    this.timer ??= setTimeout(() => void this.askAll(), INTERVAL).unref();
    return this.unknown.has(session);
  }

  stop(): void {
    this.isStopped = true;
    clearTimeout(this.timer);
  }

  /** Never rejects. */
  private async askAll(): Promise<void> {
    const seen = [...this.seen];
    this.seen = new Set();
    try {
      while (seen.length > 0) {
        const some = seen.slice(0, SESSIONS_PER_CALL);
        const unknown = await this.ask(some);
        for (const session of some) this.unknown.delete(session);
        for (const session of unknown) this.unknown.set(session, true);
        seen.splice(0, some.length);
      }
    } catch {
      // users is away, which is logged where its other question fails
    }
    for (const session of seen) this.seen.add(session);
    if (this.isStopped) return;
    this.timer = this.seen.size === 0 ? undefined : setTimeout(() => void this.askAll(), INTERVAL).unref();
  }
}
