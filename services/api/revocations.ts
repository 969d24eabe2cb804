import type { Params, Result } from "../../contracts/contract";
import type { revocations } from "../../contracts/users";

/** Milliseconds between two questions, while requests come. */
const INTERVAL = 1_000;
/** A request waits for an answer rather than trust one that is older, ms: with the question itself no more than 2 s. */
const MAX_AGE = 1_500;
/** Seconds for which an ended session is remembered after its last token has expired: as long as that may still pass. */
const LEEWAY = 60;
/** Most questions in a row. */
const MAX_PAGES = 100;

type Ask = (params: Params<typeof revocations>) => Promise<Result<typeof revocations>>;

/**
 * Which sessions have ended, as users tells a gateway at most once a second, and only while requests come: so that a
 * logout holds everywhere within 2 s, and still no request costs a call. Where users does not answer, tokens count as
 * before: an outage of users is no outage of the shop.
 */
export class Revocations {
  private readonly ended = new Map<string, number>();
  private since: string | undefined;
  private answers = true;
  private asked = -Infinity;
  private known = -Infinity;
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
    if (now - this.asked >= INTERVAL) {
      this.asked = now;
      this.asking = this.catchUp(now);
    }
    return this.answers && now - this.known > MAX_AGE ? this.asking : undefined;
  }

  hasEnded(session: string): boolean {
    return this.ended.has(session);
  }

  private async catchUp(now: number): Promise<void> {
    try {
      for (let page = 0, more = true; more && page < MAX_PAGES; page++) {
        const news = await this.ask({ ...(this.since !== undefined && { since: this.since }) });
        for (const { session, until } of news.ended) this.ended.set(session, until);
        this.heardKeys(news.kids);
        this.since = news.at;
        more = news.more;
      }
      this.known = now;
      this.answers = true;
      this.forget();
    } catch (error) {
      if (this.answers) this.failed(error);
      this.answers = false;
    }
  }

  /** By the clock of the database, as the times are. */
  private forget(): void {
    const now = Date.parse(this.since ?? "") / 1000;
    for (const [session, until] of this.ended) if (until + LEEWAY < now) this.ended.delete(session);
  }
}
