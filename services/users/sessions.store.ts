import { createHash, randomBytes } from "node:crypto";
import { NIL_ID, type Result } from "../../contracts/contract";
import type { Caller, checkSessions as contract, EndedSession, PageEnd, Role } from "../../contracts/users";
import type { Database, Query } from "../../mixins/database";
import { recordSession } from "./audit-log.store";
import type { UserRow } from "./users.store";

/** 256 bits; RFC 6749, section 10.10, requires 128. */
const TOKEN_BYTES = 32;
/** Seconds by which a commit may come later than the timestamp that it wrote, and for which a verifier may accept a token after its expiry. */
export const LATE_SECONDS = 15;

/**
 * SQL for the time from which changes are reported to a gateway: its last poll ($1), but not further back than the lifetime of an access
 * token ($2 seconds); both less LATE_SECONDS ($3). If the time of the last poll lies in the future, the database's clock was set back since,
 * and all changes within a token's lifetime are reported.
 */
export const SINCE = `greatest(
  case when $1::timestamptz <= now() then $1::timestamptz - $3::int * interval '1 second' end,
  now() - ($2::int + $3::int) * interval '1 second')`;
/** Maximum ended sessions per page. */
const MAX_ENDED_PER_PAGE = 10_000;
/** Maximum tokens and sessions deleted at once; a session may have any number of tokens. */
const MAX_DELETED = 10_000;
const MAX_SESSIONS_DELETED = 200;
/** An access token may outlive its session by the maximum ACCESS_TOKEN_TTL plus clock differences: until then the session must be kept. */
const REVOCABLE = "1 day 1 minute";

const hashOf = (token: string): Buffer => createHash("sha256").update(token).digest();
const newToken = (): string => randomBytes(TOKEN_BYTES).toString("base64url");

/** The result of a login or a refresh. */
export interface Grant {
  caller: Required<Caller>;
  refreshToken: string;
}

/** Maximum sessions per user, so that all of them can be ended in one statement and reported to gateways. */
const MAX_SESSIONS = 100;

/**
 * Opens a session, writes the audit log, and records an account's first login. Ends the user's oldest sessions above the maximum.
 * @param ttlSeconds lifetime of the refresh token
 * @returns undefined if the password has changed since it was compared, or the account was disabled: either has ended the user's
 * sessions. The user's row stays locked until the commit, so any later change of it sees this session and ends it
 */
export function openSession(
  db: Database,
  { id, password_hash }: UserRow,
  { ttlSeconds, address }: { ttlSeconds: number; address: string | undefined },
): Promise<Grant | undefined> {
  const refreshToken = newToken();
  return db.transaction(async (query) => {
    const [row] = await query<{ session: string; role: Role }>(
      `with u as (select id, role, first_login_at from users where id = $1 and password_hash = $2 and disabled_at is null for no key update),
         f as (update users set first_login_at = now() from u where users.id = u.id and u.first_login_at is null),
         s as (insert into sessions (user_id, expires_at) select id, now() + $3 * interval '1 second' from u returning id),
         t as (insert into refresh_tokens (hash, session_id) select $4, id from s)
       select s.id as session, u.role from s cross join u`,
      [id, password_hash, ttlSeconds, hashOf(refreshToken)],
    );
    if (row === undefined) return undefined;
    await endSurplus(query, id);
    await recordSession(query, { actor: id, address }, "login.succeeded", id);
    return { caller: { id, role: row.role, session: row.session }, refreshToken };
  });
}

async function endSurplus(query: Query, user: string): Promise<void> {
  await query(
    `update sessions set ended_at = clock_timestamp()
     where ended_at is null and id in (
       select id from sessions where user_id = $1 and ended_at is null order by created_at desc, id offset $2 limit $2
     )`,
    [user, MAX_SESSIONS],
  );
}

/** How a refresh token is exchanged. */
interface Renewal {
  /** Lifetime of the new refresh token, in seconds. */
  ttlSeconds: number;
  /** Seconds after its use for which a token gets its successor again; 0: never. */
  graceSeconds: number;
  /** The new refresh token. */
  successor: string;
  /** The tokens that may have replaced this one before: one for each signing key that is still published. */
  candidates: readonly string[];
  address: string | undefined;
}

/**
 * Exchanges a refresh token for its successor. Within the grace period it may be exchanged again, for the same successor: two tabs may
 * refresh at once, or a response may be lost. If it is used later, it may have been stolen, and it is unknown which client is the
 * legitimate one, so its session ends (RFC 9700, section 4.14.2).
 * @returns undefined if the token is unknown, expired or was used longer ago than the grace period, if its session has ended, or if its user
 * is disabled
 */
export function renewSession(db: Database, token: string, renewal: Renewal): Promise<Grant | undefined> {
  const { ttlSeconds, successor, address } = renewal;
  return db.transaction(async (query) => {
    const caller = await spend(query, token);
    if (caller === undefined) {
      const again = await grantAgain(query, token, renewal);
      if (again === undefined) await endReused(query, token, address);
      return again;
    }
    // The session may have ended since it was read: by a logout, a new password, or because the user was disabled. If the role has
    // changed since, that is reported to gateways for longer than this access token's lifetime.
    const [alive] = await query(
      "update sessions set expires_at = now() + $2 * interval '1 second' where id = $1 and ended_at is null returning id",
      [caller.session, ttlSeconds],
    );
    if (alive === undefined) return undefined;
    await query("insert into refresh_tokens (hash, session_id) values ($1, $2)", [hashOf(successor), caller.session]);
    return { caller, refreshToken: successor };
  });
}

/**
 * Marks an unused refresh token as used. Of two concurrent uses, one gets the row, and the other waits for its commit.
 * @returns undefined if the token is unknown, used or expired, its session has ended, or its user is disabled
 */
async function spend(query: Query, token: string): Promise<Required<Caller> | undefined> {
  // The user's row is not locked: a client that refreshes continuously would block those who disable, demote or log in that user.
  const [caller] = await query<Required<Caller>>(
    `with live as (
       select t.hash, u.id, u.role, s.id as session
       from refresh_tokens t join sessions s on s.id = t.session_id join users u on u.id = s.user_id
       where t.hash = $1 and t.used_at is null and s.ended_at is null and s.expires_at > now() and u.disabled_at is null
       for no key update of t
     )
     update refresh_tokens t set used_at = now() from live where t.hash = live.hash
     returning live.id, live.role, live.session`,
    [hashOf(token)],
  );
  return caller;
}

/**
 * Repeats the grant for a token that was used within the grace period. The session is locked, so that it can't end meanwhile; its expiry
 * stays the same. A use in the future, before the clock was set back, does not count.
 * @returns undefined if the token was used earlier or not at all, none of the candidates has replaced it, its session has ended or expired,
 * or its user is disabled
 */
async function grantAgain(query: Query, token: string, { candidates, graceSeconds }: Renewal): Promise<Grant | undefined> {
  const [row] = await query<Required<Caller> & { successor: Buffer }>(
    `select u.id, u.role, s.id as session, n.hash as successor
     from refresh_tokens t
       join refresh_tokens n on n.session_id = t.session_id and n.hash = any($2::bytea[])
       join sessions s on s.id = t.session_id
       join users u on u.id = s.user_id
     where t.hash = $1 and t.used_at > now() - $3 * interval '1 second' and t.used_at < now() + $3 * interval '1 second'
       and s.ended_at is null and s.expires_at > now() and u.disabled_at is null
     for no key update of s`,
    [hashOf(token), candidates.map(hashOf), graceSeconds],
  );
  const refreshToken = row && candidates.find((candidate) => hashOf(candidate).equals(row.successor));
  if (row === undefined || refreshToken === undefined) return undefined;
  return { caller: { id: row.id, role: row.role, session: row.session }, refreshToken };
}

/** Ends the session of a refresh token if the token was used before. */
async function endReused(query: Query, token: string, address: string | undefined): Promise<void> {
  const [reused] = await query<{ user_id: string }>(
    `update sessions s set ended_at = clock_timestamp() from refresh_tokens t
     where t.hash = $1 and t.used_at is not null and s.id = t.session_id and s.ended_at is null returning s.user_id`,
    [hashOf(token)],
  );
  if (reused !== undefined) await recordSession(query, { actor: null, address }, "refresh.reused", reused.user_id);
}

/** Ends the session of a refresh token, used or not. Does nothing if the token is unknown. */
export function endSession(db: Database, token: string, address: string | undefined): Promise<void> {
  return db.transaction(async (query) => {
    const [ended] = await query<{ user_id: string }>(
      `update sessions s set ended_at = clock_timestamp() from refresh_tokens t
       where t.hash = $1 and s.id = t.session_id and s.ended_at is null returning s.user_id`,
      [hashOf(token)],
    );
    if (ended !== undefined) await recordSession(query, { actor: ended.user_id, address }, "logout", ended.user_id);
  });
}

/**
 * Sets a new password and ends all sessions of the user except the given one.
 * @returns false if the password has changed since it was compared, or the account is disabled
 */
export function changePassword(
  db: Database,
  user: UserRow,
  passwordHash: string,
  { session, address }: { session: string | undefined; address: string | undefined },
): Promise<boolean> {
  return db.transaction(async (query) => {
    const changed = await query(
      "update users set password_hash = $3 where id = $1 and password_hash = $2 and disabled_at is null returning id",
      [user.id, user.password_hash, passwordHash],
    );
    if (changed.length === 0) return false;
    await query(
      "update sessions set ended_at = clock_timestamp() where user_id = $1 and ended_at is null and id is distinct from $2::uuid",
      [user.id, session ?? null],
    );
    await recordSession(query, { actor: user.id, address }, "password.changed", user.id);
    return true;
  });
}

/**
 * The sessions that have ended since a given time, while an access token of theirs may still be valid.
 * @param since `at` of an earlier result
 * @param after `next` of the previous page
 * @param ttlSeconds maximum lifetime of any access token
 */
export async function endedSessions(
  { query }: Database,
  { since, after }: { since?: string; after?: PageEnd },
  ttlSeconds: number,
): Promise<{ at: string; next: PageEnd | null; ended: EndedSession[] }> {
  const [clock] = await query<{ now: Date }>("select now()");
  const rows = await query<EndedSession & PageEnd>(
    `select id as session, to_char(ended_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') as ended_at,
       ceil(extract(epoch from ended_at))::bigint + $2::int as until
     from sessions
     where ended_at > ${SINCE}
       and (ended_at, id) > ($4::timestamptz, $5::uuid)
     order by ended_at, id limit $6`,
    [since ?? "-infinity", ttlSeconds, LATE_SECONDS, after?.ended_at ?? "-infinity", after?.session ?? NIL_ID, MAX_ENDED_PER_PAGE],
  );
  const last = rows.length === MAX_ENDED_PER_PAGE ? rows.at(-1) : undefined;
  return {
    at: (clock?.now ?? new Date(0)).toISOString(),
    next: last === undefined ? null : { ended_at: last.ended_at, session: last.session },
    ended: rows.map(({ session, until }) => ({ session, until })),
  };
}

/**
 * @param ttlSeconds maximum lifetime of any access token
 * @returns which of these sessions are unknown, which belong to admins, and until when a token may still contain an old role
 */
export async function checkSessions({ query }: Database, ids: readonly string[], ttlSeconds: number): Promise<Result<typeof contract>> {
  const [row] = await query<Result<typeof contract>>(
    `select coalesce(array_agg(requested.id) filter (where s.id is null), '{}') as unknown,
       coalesce(array_agg(requested.id) filter (where u.role = 'admin'), '{}') as admins,
       ceil(extract(epoch from now()))::bigint + $2::int + $3::int as until
     from unnest($1::uuid[]) as requested (id) left join sessions s on s.id = requested.id left join users u on u.id = s.user_id`,
    [ids, ttlSeconds, LATE_SECONDS],
  );
  if (row === undefined) throw new Error("an aggregate returned no row");
  return row;
}

/**
 * Deletes old used tokens, since a session that is refreshed continuously never ends, and ended or expired sessions. Deletes only as
 * many as a statement handles quickly.
 * @param ttlSeconds lifetime of a refresh token; reuse is detected for as long
 * @returns whether there may be more
 */
export async function deleteExpiredSessions({ query }: Database, ttlSeconds: number): Promise<boolean> {
  const used = await query(
    "delete from refresh_tokens where hash in (select hash from refresh_tokens where used_at < now() - $2 * interval '1 second' limit $1) returning 1",
    [MAX_DELETED, ttlSeconds],
  );
  const expired = await query<{ id: string }>(
    `select id from sessions where expires_at < now() - interval '${REVOCABLE}' or ended_at < now() - interval '${REVOCABLE}' limit $1`,
    [MAX_SESSIONS_DELETED],
  );
  const ids = expired.map(({ id }) => id);
  // Tokens first: deleting a session cascades to all its remaining tokens, in one statement.
  const tokens = await query(
    `delete from refresh_tokens where hash in (
       select t.hash from unnest($2::uuid[]) as s (id) cross join lateral (select hash from refresh_tokens where session_id = s.id limit $1) as t
       limit $1
     ) returning 1`,
    [MAX_DELETED, ids],
  );
  await query(
    "delete from sessions where id = any($1::uuid[]) and not exists (select from refresh_tokens where session_id = sessions.id)",
    [ids],
  );
  return used.length === MAX_DELETED || tokens.length === MAX_DELETED || expired.length === MAX_SESSIONS_DELETED;
}
