import type { Params, Result } from "../../../contracts/contract";
import type { Caller, PageEnd, revocations, Role } from "../../../contracts/users";

/** Milliseconds between two polls of the users service, while requests arrive. */
const INTERVAL_MS = 1_000;
/** Maximum age of the last result, in ms; a request waits for a new one if it is older. Including the poll, revocation takes at most 2 s. */
const MAX_AGE_MS = 1_500;
/** Milliseconds after a failed poll for which requests continue without waiting for a new result. */
const OUTAGE_MS = 2_000;
/** Seconds for which an ended session is kept after its last token has expired, since clock differences may let that token pass. */
const RETENTION_SECONDS = 60;
/** Maximum calls per poll. */
const MAX_PAGES = 100;

type News = Result<typeof revocations>;
type Fetch = (params: Params<typeof revocations>) => Promise<News>;

/**
 * Ended sessions and changed roles. The gateway polls the users service for them at most once per second, and only while requests arrive or
 * streams are open. A logout or demotion takes effect everywhere within 2 s, at no extra call per request. While the users service is
 * unavailable, tokens remain valid: its outage must not become an outage of the shop.
 */
export class Revocations {
  private readonly ended = new Map<string, number>();
  private readonly roles = new Map<string, { role: Role; until: number }>();
  private since: string | undefined;
  private isReporting = true;
  private polledAt = -Infinity;
  private knownAt = -Infinity;
  private failedAt = -Infinity;
  private isPolling = false;
  private polling = Promise.resolve();

  /** @param onKeys called with the ids of all current keys */
  constructor(
    private readonly fetch: Fetch,
    private readonly onKeys: (kids: readonly string[]) => void,
    private readonly failed: (error: unknown) => void,
  ) {}

  /** Polls if it is time. @returns a promise only if the caller has to wait for it */
  refresh(): Promise<void> | undefined {
    const now = performance.now();
    if (!this.isPolling && now - this.polledAt >= INTERVAL_MS) {
      this.polledAt = now;
      this.polling = this.catchUp(now);
    }
    const isDown = now - this.failedAt < OUTAGE_MS; // don't wait again for a poll that has just failed
    return !isDown && now - this.knownAt > MAX_AGE_MS ? this.polling : undefined;
  }

  hasEnded(session: string): boolean {
    return this.ended.has(session);
  }

  /** The caller with their current role, if it has changed within the lifetime of a token. */
  withRole<C extends Pick<Caller, "id" | "role">>(caller: C): C {
    const now = this.roles.get(caller.id)?.role;
    return now === undefined || now === caller.role ? caller : { ...caller, role: now };
  }

  /**
   * Stores a user's current role if it differs from that in the token or from the one stored before. A stale role that arrives late is
   * corrected a second later, by the next poll here or in `SeenSessions`.
   */
  setRole(caller: Pick<Caller, "id" | "role">, role: Role, until: number): void {
    if (this.withRole(caller).role !== role) this.roles.set(caller.id, { role, until });
  }

  private async catchUp(now: number): Promise<void> {
    this.isPolling = true;
    try {
      this.since = await this.fetchAll();
      this.knownAt = now;
      this.isReporting = true;
      this.failedAt = -Infinity;
      this.forget();
    } catch (error) {
      if (this.isReporting) this.failed(error); // once per outage
      this.isReporting = false;
      this.failedAt = performance.now();
    } finally {
      this.isPolling = false;
    }
  }

  /** Reads all pages. @returns the time up to which the result is complete */
  private async fetchAll(): Promise<string> {
    const since = this.since === undefined ? {} : { since: this.since };
    let at: string | undefined;
    let after: PageEnd | null = null;
    for (let page = 0; page < MAX_PAGES; page++) {
      const news: News = await this.fetch({ ...since, ...(after !== null && { after }) });
      for (const { session, until } of news.ended) this.ended.set(session, until);
      for (const { user, role, until } of news.roles ?? []) this.roles.set(user, { role, until });
      this.onKeys(news.kids);
      at ??= news.at;
      after = news.next;
      if (after === null) return at;
    }
    throw new Error("too many sessions have ended for one poll");
  }

  /** Deletes expired entries, by the database's clock, as the times are. */
  private forget(): void {
    const now = Date.parse(this.since ?? "") / 1000;
    for (const [session, until] of this.ended) if (until + RETENTION_SECONDS < now) this.ended.delete(session);
    for (const [user, { until }] of this.roles) if (until + RETENTION_SECONDS < now) this.roles.delete(user);
  }
}
