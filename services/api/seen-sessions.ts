import { LRUCache } from "lru-cache";
import type { Result } from "../../contracts/contract";
import { SESSIONS_PER_CALL, type Caller, type checkSessions, type Role } from "../../contracts/users";

/** Milliseconds after which users is asked about a session that was seen, together with all others of that time. */
const INTERVAL = 1_000;
/** Most sessions that wait to be asked about; others are when they are seen again. */
const MAX_SEEN = 50_000;
const MAX_REMEMBERED = 10_000;

type Seen = Required<Caller>;

/**
 * What a database of users that fell back has changed, in the sessions that are used: it does not know some of them, and nobody could end
 * them; and people have the roles of earlier, which nobody has changed. Users is asked once a second about those that were seen, apart from
 * what has ended, which must not wait for it. One that was unknown is asked about again when it is seen again: a backup that is being
 * restored may have it a moment later.
 */
export class SeenSessions {
  private seen = new Map<string, Seen>();
  private readonly unknown = new LRUCache<string, true>({ max: MAX_REMEMBERED });
  private timer: NodeJS.Timeout | undefined;
  private isStopped = false;

  /** @param heardRole hears the role of everybody who was asked about */
  constructor(
    private readonly ask: (sessions: string[]) => Promise<Result<typeof checkSessions>>,
    private readonly heardRole: (caller: Seen, role: Role, until: number) => void,
  ) {}

  /** Whether users did not know the caller's session when it was last asked, which it is again soon. */
  isUnknown(caller: Seen): boolean {
    const { session, role } = caller;
    // Of two tokens of a session, the one that claims more is checked.
    if (this.seen.has(session) ? role === "admin" : this.seen.size < MAX_SEEN) this.seen.set(session, caller);
    this.timer ??= setTimeout(() => void this.askAll(), INTERVAL).unref();
    return this.unknown.has(session);
  }

  stop(): void {
    this.isStopped = true;
    clearTimeout(this.timer);
  }

  /** Never rejects. */
  private async askAll(): Promise<void> {
    const seen = [...this.seen.values()];
    this.seen = new Map();
    try {
      while (seen.length > 0) {
        await this.askAbout(seen.slice(0, SESSIONS_PER_CALL));
        seen.splice(0, SESSIONS_PER_CALL);
      }
    } catch {
      // users is away, which is logged where its other question fails
    }
    for (const caller of seen) this.seen.set(caller.session, caller);
    if (this.isStopped) return;
    this.timer = this.seen.size === 0 ? undefined : setTimeout(() => void this.askAll(), INTERVAL).unref();
  }

  private async askAbout(some: readonly Seen[]): Promise<void> {
    const { unknown, admins, until } = await this.ask(some.map(({ session }) => session));
    const [lost, ofAdmins] = [new Set(unknown), new Set(admins)];
    for (const caller of some) {
      if (lost.has(caller.session)) this.unknown.set(caller.session, true);
      else {
        this.unknown.delete(caller.session);
        this.heardRole(caller, ofAdmins.has(caller.session) ? "admin" : "user", until);
      }
    }
  }
}
