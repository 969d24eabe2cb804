import { LRUCache } from "lru-cache";
import type { Result } from "../../../contracts/contract";
import { SESSIONS_PER_CALL, type Caller, type checkSessions, type Role } from "../../../contracts/users";

/** Milliseconds until the sessions seen are checked with the users service, in one batch. */
const INTERVAL_MS = 1_000;
/** Maximum sessions waiting to be checked; any others are checked when they are seen again. */
const MAX_SEEN = 50_000;
const MAX_REMEMBERED = 10_000;

type Seen = Required<Caller>;

/**
 * Detects what a restored backup of user_db has changed for the sessions in use. The database may not know some of them, so they could not
 * be ended, and users may have old roles again, which no change reports. The sessions seen are checked with the users service once per
 * second, apart from the poll for ended sessions, which must not wait for this check. An unknown session is checked again when it is
 * seen again: a restore in progress may bring it back a moment later.
 */
export class SeenSessions {
  private seen = new Map<string, Seen>();
  private readonly unknown = new LRUCache<string, true>({ max: MAX_REMEMBERED });
  private timer: NodeJS.Timeout | undefined;
  private isStopped = false;

  /** @param onRole called with the current role of each user checked */
  constructor(
    private readonly check: (sessions: string[]) => Promise<Result<typeof checkSessions>>,
    private readonly onRole: (caller: Seen, role: Role, until: number) => void,
  ) {}

  /** Whether the users service did not know the caller's session at the last check. Schedules the next check. */
  isUnknown(caller: Seen): boolean {
    const { session, role } = caller;
    // If a session has tokens with different roles, check the admin one.
    if (this.seen.has(session) ? role === "admin" : this.seen.size < MAX_SEEN) this.seen.set(session, caller);
    this.timer ??= setTimeout(() => void this.checkAll(), INTERVAL_MS).unref();
    return this.unknown.has(session);
  }

  stop(): void {
    this.isStopped = true;
    clearTimeout(this.timer);
  }

  /** Never rejects. */
  private async checkAll(): Promise<void> {
    const seen = [...this.seen.values()];
    this.seen = new Map();
    try {
      while (seen.length > 0) {
        await this.checkSome(seen.slice(0, SESSIONS_PER_CALL));
        seen.splice(0, SESSIONS_PER_CALL);
      }
    } catch {
      // The users service is unavailable; `Revocations` logs that.
    }
    for (const caller of seen) this.seen.set(caller.session, caller);
    if (this.isStopped) return;
    this.timer = this.seen.size === 0 ? undefined : setTimeout(() => void this.checkAll(), INTERVAL_MS).unref();
  }

  private async checkSome(some: readonly Seen[]): Promise<void> {
    const { unknown, admins, until } = await this.check(some.map(({ session }) => session));
    const [lost, ofAdmins] = [new Set(unknown), new Set(admins)];
    for (const caller of some) {
      if (lost.has(caller.session)) this.unknown.set(caller.session, true);
      else {
        this.unknown.delete(caller.session);
        this.onRole(caller, ofAdmins.has(caller.session) ? "admin" : "user", until);
      }
    }
  }
}
