import { createHash } from "node:crypto";
import { errorType, problem, tooLate } from "../../broker/errors";
import { currentDeadline, withoutDeadline } from "../../broker/request";
import type { Database } from "../../mixins/database";
import { FairSlots } from "../../mixins/fair-queue";
import { isUniqueViolation } from "../../mixins/sql-state";
import { countAttempt, type Limit } from "./attempts.store";
import { recordFailure } from "./audit-log.store";
import { isKnownAddress, rememberAddress } from "./known-addresses.store";
import type { Passwords, PasswordCheck } from "./passwords";
import { changePassword, openSession, type Grant } from "./sessions.store";
import type { QueueName, Turn } from "./turns";
import { emailKey, highestCost, insertUser, isJustRegistered, renewHash, type UserRow } from "./users.store";

/** Attempts per minute; 0 means no limit. */
interface LoginLimits {
  /** wrong passwords for one account from one address */
  auth: number;
  /** wrong passwords for one account from all addresses */
  account: number;
  /** wrong passwords from one address */
  address: number;
  /** registrations from one address */
  register: number;
  /** wrong current passwords of one user changing their password */
  password: number;
}

/** Whose password is checked: an account's at a login or a registration, or the caller's own when they change it. */
type Who = { email_key: string } | { id: string };

/** Looks up a user in the users table. */
type FindUser = (where: Who) => Promise<UserRow | undefined>;

/** The caller: the address as the gateway names it, undefined for an internal call. */
export interface Visitor {
  address: string | undefined;
  /** Whether the caller is still connected. */
  isWanted: () => boolean;
}

interface Credentials {
  email: string;
  password: string;
}

/**
 * Attempts are counted one at a time: those of one address or account wait for the same row locks anyway, and must not hold the ten
 * database connections or CPU cores meanwhile. `places` is the number that may wait for a hash.
 */
const COUNTING = { slots: 1, places: 256 };

/** Everything that checks or sets a password: logins, registrations and password changes, each within its limits. */
export class Logins {
  private readonly counting = new FairSlots(COUNTING);

  constructor(
    private readonly db: Database,
    private readonly find: FindUser,
    private readonly passwords: Passwords,
    private readonly settings: { rateLimit: LoginLimits; refreshTokenTtlSeconds: number },
  ) {}

  /** @throws INVALID_CREDENTIALS, TOO_MANY_REQUESTS, SERVICE_UNAVAILABLE */
  async logIn({ email, password }: Credentials, visitor: Visitor): Promise<Grant> {
    const account = { email_key: emailKey(email) };
    const turn = turnOf("logins", visitor, hashOf(account.email_key));
    this.passwords.checkCapacity(turn); // before a row is written
    return this.checked(account, visitor, turn, () =>
      retryIfChanged(async () => {
        const user = await this.verify(await this.find(account), { password }, turn);
        checkTime(turn);
        const grant = await openSession(this.db, user, { ttlSeconds: this.settings.refreshTokenTtlSeconds, address: visitor.address });
        if (grant && visitor.address !== undefined) await rememberAddress(this.db, user.id, visitor.address);
        return grant;
      }),
    );
  }

  /**
   * Creates an account. If the same registration is repeated within 15 minutes and before the first login, returns the account that it
   * created, since the first response may have been lost.
   * @throws EMAIL_TAKEN, which counts as a failed login; TOO_MANY_REQUESTS; SERVICE_UNAVAILABLE: if the connection was lost during the
   * commit, the account may exist
   */
  async register({ email, password }: Credentials, visitor: Visitor): Promise<UserRow> {
    const account = { email_key: emailKey(email) };
    const turn = turnOf("registrations", visitor);
    this.passwords.checkCapacity(turn);
    const isCounted = (): boolean => turn.isUsed === true; // whatever the outcome, once a password has been hashed
    return this.counted(turn, this.registrationLimits(visitor), isCounted, async () => {
      const taken = await this.find(account);
      if (taken) return this.registerAgain(taken, password, visitor, turn);
      const password_hash = await this.passwords.hash(password, turn);
      checkTime(turn);
      try {
        return await insertUser(this.db, { email, password_hash }, visitor.address);
      } catch (error) {
        const winner = isUniqueViolation(error) ? await this.find(account) : undefined;
        if (winner === undefined) throw error;
        return this.registerAgain(winner, password, visitor, turn);
      }
    });
  }

  /**
   * Sets a new password and ends all sessions of the user except the given one.
   * @throws INVALID_CREDENTIALS, UNAUTHENTICATED, TOO_MANY_REQUESTS, SERVICE_UNAVAILABLE
   */
  async changePassword(
    { id, session }: { id: string; session?: string },
    { current, next }: { current: string; next: string },
    visitor: Visitor,
  ): Promise<void> {
    const turn = turnOf("logins", visitor, id);
    this.passwords.checkCapacity(turn);
    await this.checked({ id }, visitor, turn, () =>
      retryIfChanged(async () => {
        const user = await this.find({ id });
        if (user?.disabled_at !== null) throw noAccount();
        const { isCorrect } = await this.check(user, { password: current, isBeingReplaced: true }, turn);
        if (!isCorrect) throw wrongCredentials();
        const hash = await this.passwords.hash(next, turn); // in a turn of its own, so that others wait for one hash at a time
        checkTime(turn);
        return (await changePassword(this.db, user, hash, { session, address: visitor.address })) || undefined;
      }),
    );
  }

  /** Runs work that checks a password, within the limits on wrong passwords, and logs a wrong one. */
  private async checked<T>(who: Who, visitor: Visitor, turn: Turn, work: () => Promise<T>): Promise<T> {
    try {
      return await this.counted(turn, this.limitsOf(who, visitor), isWrongPassword, work);
    } catch (error) {
      if (isWrongPassword(error)) await withoutDeadline(() => this.logFailure(who, visitor));
      throw error;
    }
  }

  private async logFailure(who: Who, { address }: Visitor): Promise<void> {
    if ("id" in who) await recordFailure(this.db, { actor: who.id, address }, "password.refused", who.id);
    else await recordFailure(this.db, { actor: null, address }, "login.failed", (await this.find(who))?.id ?? null);
  }

  /**
   * Counts an attempt before its work, and undoes the count unless the outcome counts. It is counted when its client's turn comes, and not
   * if the caller has disconnected by then.
   * @param counts whether the outcome counts, given the error of `work`, or undefined if it succeeded
   * @throws TOO_MANY_REQUESTS
   */
  private async counted<T>(turn: Turn, limits: readonly Limit[], counts: (error: unknown) => boolean, work: () => Promise<T>): Promise<T> {
    const isWanted = (): boolean => turn.isWanted() && performance.now() <= turn.deadline;
    // Without the user, whom anyone can name by e-mail address: strangers must not use up that user's share of the places.
    const client = { address: turn.client.address, user: undefined };
    const attempt = await this.counting.run(client, () => countAttempt(this.db, limits), isWanted);
    if (!attempt.ok) throw problem("TOO_MANY_REQUESTS", "too many attempts; try again later", { retryAfter: attempt.retryAfterSeconds });
    let result: T;
    try {
      result = await work();
    } catch (error) {
      if (!counts(error)) await attempt.undo();
      throw error;
    }
    if (!counts(undefined)) await attempt.undo();
    return result;
  }

  /** Always does as much work as for a wrong password, so that timing reveals nothing about the account. */
  private async registerAgain(user: UserRow, password: string, visitor: Visitor, turn: Turn): Promise<UserRow> {
    return this.checked({ email_key: user.email_key }, visitor, turn, async () => {
      const isRepeatable = await isJustRegistered(this.db, user.id);
      const { isCorrect } = await this.check(isRepeatable ? user : undefined, { password }, turn);
      if (!isCorrect) throw problem("EMAIL_TAKEN", "this e-mail address already has an account");
      return user;
    });
  }

  /** @returns the user with the current hash; @throws INVALID_CREDENTIALS, taking as long for an unknown account as for a wrong password */
  private async verify(found: UserRow | undefined, question: { password: string }, turn: Turn): Promise<UserRow> {
    const user = found?.disabled_at === null ? found : undefined; // for a disabled account, no password is correct
    const { isCorrect, hash } = await this.check(user, question, turn);
    if (!isCorrect || user === undefined) throw wrongCredentials();
    const isRenewed = hash !== undefined && (await renewHash(this.db, user, hash));
    return isRenewed ? { ...user, password_hash: hash } : user;
  }

  private async check(user: UserRow | undefined, question: Pick<PasswordCheck, "password" | "isBeingReplaced">, turn: Turn) {
    return this.passwords.check({ ...question, hashed: user?.password_hash, highestCost: await highestCost(this.db) }, turn);
  }

  /** The address's limit comes first: a refused address must not be able to lock accounts. */
  private limitsOf(who: Who, { address }: Visitor): Limit[] {
    const { rateLimit } = this.settings;
    // Counted separately: failed logins by strangers must not keep a user from changing their password.
    if ("id" in who) return [{ subject: ["password", who.id], limit: rateLimit.password }];
    const account = who.email_key;
    const ofAccount = { subject: ["account", account], limit: rateLimit.account };
    if (address === undefined) return [ofAccount];
    return [
      { subject: ["address", address], limit: rateLimit.address },
      { subject: ["account", account, "address", address], limit: rateLimit.auth },
      { ...ofAccount, isExempt: () => this.isKnown(who, address) },
    ];
  }

  private registrationLimits({ address }: Visitor): Limit[] {
    return address === undefined ? [] : [{ subject: ["register", address], limit: this.settings.rateLimit.register }];
  }

  private async isKnown(who: Who, address: string): Promise<boolean> {
    const user = await this.find(who);
    return user !== undefined && isKnownAddress(this.db, user.id, address);
  }
}

const wrongCredentials = () => problem("INVALID_CREDENTIALS", "the e-mail address or the password is wrong");
export const noAccount = () => problem("UNAUTHENTICATED", "this account does not exist, or is disabled");

const isWrongPassword = (error: unknown): boolean => ["INVALID_CREDENTIALS", "EMAIL_TAKEN"].includes(errorType(error) ?? "");

/** Call before a change: the caller may no longer be waiting for it. */
function checkTime({ deadline }: Turn): void {
  if (performance.now() > deadline) throw tooLate();
}

/** Maximum tries: a concurrent login may renew the hash, and then a password change may replace it. */
const MAX_TRIES = 3;

/**
 * Retries if the stored hash has changed by the time the user is to be updated. A concurrent login may have renewed the hash of the same
 * password, which must not be reported as wrong.
 */
async function retryIfChanged<T>(work: () => Promise<T | undefined>): Promise<T> {
  for (let tries = 0; tries < MAX_TRIES; tries++) {
    const result = await work();
    if (result !== undefined) return result;
  }
  throw problem("SERVICE_UNAVAILABLE", "this account is being changed");
}

/** Internal calls share one address. */
const turnOf = (queue: QueueName, { address = "inside", isWanted }: Visitor, user?: string): Turn => ({
  queue,
  client: { address, user },
  deadline: currentDeadline(),
  isWanted,
});

/** Key by which logins from one address rotate, for existing and unknown accounts alike. */
const hashOf = (account: string): string => createHash("sha256").update(account).digest("base64url");
