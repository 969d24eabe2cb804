import type { Params, Result } from "../../contracts/contract";
import type { Caller, PageEnd, revocations, Role } from "../../contracts/users";

/** Milliseconds between two questions, while requests come. */
const INTERVAL = 1_000;
/** A request waits for an answer rather than trust one that is older, ms: with the question itself no more than 2 s. */
const MAX_AGE = 1_500;
/** Milliseconds for which requests go on without an answer where users has not given one. */
const GIVEN_UP = 2_000;
/** Seconds for which an ended session is remembered after its last token has expired: as long as that may still pass. */
const LEEWAY = 60;
/** Most questions in a row. */
const MAX_PAGES = 100;

type News = Result<typeof revocations>;
type Ask = (params: Params<typeof revocations>) => Promise<News>;

/**
 * Which sessions have ended and which roles have changed, as users tells a gateway at most once a second, and only while requests
 * come or streams are open: so that a logout or a demotion holds everywhere within 2 s, and still no request costs a call. Where users
 * does not answer, tokens count as before: an outage of users is no outage of the shop.
 */
export class Revocations {
  private readonly ended = new Map<string, number>();
  private readonly roles = new Map<string, { role: Role; until: number }>();
  private since: string | undefined;
  private answers = true;
  private asked = -Infinity;
  private known = -Infinity;
  private failedAt = -Infinity;
  private isAsking = false;
  private asking = Promise.resolve();

  /** @param heardKeys hears the ids of the keys that are told now */
  constructor(
    private readonly ask: Ask,
    private readonly heardKeys: (kids: readonly string[]) => void,
    private readonly failed: (error: unknown) => void,
  ) {}

  /** @returns a promise only where it has to be waited for */
  refresh(): Promise<void> | undefined {
    const now = performance.now();
    if (!this.isAsking && now - this.asked >= INTERVAL) {
      this.asked = now;
      this.asking = this.catchUp(now);
    }
    const isDown = now - this.failedAt < GIVEN_UP; // nobody waits again for what has just failed
    return !isDown && now - this.known > MAX_AGE ? this.asking : undefined;
  }

  hasEnded(session: string): boolean {
    return this.ended.has(session);
  }

  /** With the role that the person has now, where it has changed within the life of a token. */
  withRole<C extends Pick<Caller, "id" | "role">>(caller: C): C {
    const now = this.roles.get(caller.id)?.role;
    return now === undefined || now === caller.role ? caller : { ...caller, role: now };
  }

  /**
   * What users says of the role that somebody has now; remembered where it is another than their token bears, or than was heard before.
   * What was read before the role changed, and comes late, is put right by the next question of either kind, a second later.
   */
  setRole(caller: Pick<Caller, "id" | "role">, role: Role, until: number): void {
    if (this.withRole(caller).role !== role) this.roles.set(caller.id, { role, until });
  }

  private async catchUp(now: number): Promise<void> {
    this.isAsking = true;
    try {
      this.since = await this.askAll();
      this.known = now;
      this.answers = true;
      this.failedAt = -Infinity;
      this.forget();
    } catch (error) {
      if (this.answers) this.failed(error); // once for an outage
      this.answers = false;
      this.failedAt = performance.now();
    } finally {
      this.isAsking = false;
    }
  }

  /** Page by page. @returns the time up to which all is known */
  private async askAll(): Promise<string> {
    const since = this.since === undefined ? {} : { since: this.since };
    let at: string | undefined;
    let after: PageEnd | null = null;
    for (let page = 0; page < MAX_PAGES; page++) {
      const news: News = await this.ask({ ...since, ...(after !== null && { after }) });
      for (const { session, until } of news.ended) this.ended.set(session, until);
      for (const { user, role, until } of news.roles ?? []) this.roles.set(user, { role, until });
      this.heardKeys(news.kids);
      at ??= news.at;
      after = news.next;
      if (after === null) return at;
    }
    throw new Error("more sessions have ended than can be told");
  }

  /** By the clock of the database, as the times are. */
  private forget(): void {
    const now = Date.parse(this.since ?? "") / 1000;
    for (const [session, until] of this.ended) if (until + LEEWAY < now) this.ended.delete(session);
    for (const [user, { until }] of this.roles) if (until + LEEWAY < now) this.roles.delete(user);
  }
}
