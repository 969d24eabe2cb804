import type { Context } from "moleculer";
import { callerOf, type Meta } from "../broker/contract";
import { problem } from "../broker/errors";
import type { ActionContract, Result } from "../contracts/contract";
import { digestOfJson } from "../contracts/digest";
import type { Database, Query } from "./database";
import { isKeyLockTimeout } from "./sql-state";

/** How long a response is kept. After that its key is free. */
const KEPT = "24 hours";
/**
 * Milliseconds that a retry waits for the first request with its key, and that a change then waits for each locked row. Two such waits are
 * shorter than the timeout of a call.
 */
const LOCK_WAIT_MS = 950;
/** Rows that one statement deletes. */
const MAX_DELETED = 500;

/** What an action does, in two parts, since a transaction must not wait for calls to other services. */
interface Work<R> {
  /** Checks, and calls to other services. A retry skips them. */
  prepare?: () => Promise<unknown>;
  /** Makes the change, on this connection only. An error undoes it. @returns the response */
  change: (query: Query) => Promise<R>;
  /** The change is a single statement, which needs no transaction if there is no key. */
  isOneStatement?: boolean;
  /**
   * Called after the change: false if it had been made before, so that a retry has no effect anyway. The response is then not stored, or one
   * client could fill the disk with responses to requests that do nothing.
   */
  hasChanged?: () => boolean;
}

interface KeyedRequest {
  userId: string;
  key: string;
  hash: string;
  meta: Meta;
}

/**
 * Does the work of an action once per `Idempotency-Key`, which the gateway puts into the call's meta. The key, the change and the response
 * commit together. A retry gets the stored response before anything could refuse it, and is marked as `replayed` in the meta. A request
 * that is refused or fails stores nothing, so its key is free. Retries have the same params, including those from the path and from
 * `If-Match`, which decides whether the change is made. Without a key the work is simply done.
 * @throws IDEMPOTENCY_KEY_REUSED, IDEMPOTENCY_IN_FLIGHT
 */
export async function once<C extends ActionContract>(
  db: Database,
  { name }: C,
  ctx: Context<unknown, Meta>,
  work: Work<Result<C>>,
): Promise<Result<C>> {
  const { prepare, change, isOneStatement = false } = work;
  const { meta, params } = ctx;
  if (meta.idempotencyKey === undefined) {
    await prepare?.();
    return isOneStatement ? change(db.query) : db.transaction(change);
  }
  const hash = digestOfJson({ action: name, params });
  const request: KeyedRequest = { userId: callerOf(ctx).id, key: meta.idempotencyKey, hash, meta };
  const first = await replay<Result<C>>(db.query, request);
  if (first !== undefined) return first.response;
  try {
    await prepare?.();
    return await db.transaction((query) => changeOnce(query, request, work));
  } catch (error) {
    // Meanwhile a concurrent request with the key may have succeeded; or this one, if its connection was lost during the commit.
    const meanwhile = await replay<Result<C>>(db.query, request).catch(() => undefined); // the first error is the one to report
    if (meanwhile !== undefined) return meanwhile.response;
    throw error;
  }
}

/** The stored response to a request, which is then marked as a replay; undefined if there is none. */
async function replay<R>(query: Query, { userId, key, hash, meta }: KeyedRequest): Promise<{ response: R } | undefined> {
  const [stored] = await query<{ request_hash: string; response: R }>(
    `select request_hash, response from idempotent_requests where user_id = $1 and key = $2 and created_at > now() - interval '${KEPT}'`,
    [userId, key],
  );
  if (stored === undefined) return undefined;
  if (stored.request_hash !== hash) throw problem("IDEMPOTENCY_KEY_REUSED", "this key was used before for a different request");
  meta.replayed = true;
  return stored;
}

/** Makes a change in this transaction, unless a request with its key has succeeded. */
async function changeOnce<R>(query: Query, request: KeyedRequest, { change, hasChanged }: Work<R>): Promise<R> {
  await query("select set_config('lock_timeout', $1, true)", [String(LOCK_WAIT_MS)]);
  if (!(await takeKey(query, request))) {
    // A new statement, since only that sees a row which was committed while the insert waited for it.
    const first = await replay<R>(query, request);
    if (first === undefined) throw inFlight();
    return first.response;
  }
  const response = await change(query);
  const { userId, key } = request;
  if (hasChanged?.() === false) await query("delete from idempotent_requests where user_id = $1 and key = $2", [userId, key]);
  else await query("update idempotent_requests set response = $3 where user_id = $1 and key = $2", [userId, key, JSON.stringify(response)]);
  return response;
}

/** Writes a key, for which other requests with it wait until the transaction ends. @returns whether it was free */
async function takeKey(query: Query, { userId, key, hash }: KeyedRequest): Promise<boolean> {
  const taken = await query(
    `insert into idempotent_requests as r (user_id, key, request_hash) values ($1, $2, $3)
     on conflict (user_id, key) do update set request_hash = excluded.request_hash, response = null, created_at = excluded.created_at
       where r.created_at <= now() - interval '${KEPT}'
     returning 1`,
    [userId, key, hash],
  ).catch((error: unknown) => {
    throw isKeyLockTimeout(error) ? inFlight() : error;
  });
  return taken.length > 0;
}

const inFlight = () => problem("IDEMPOTENCY_IN_FLIGHT", "the first request with this key is still in progress");

/** Deletes expired responses. Nodes may do so at the same time. @returns whether there may be more */
export async function deleteExpiredResponses({ query }: Database): Promise<boolean> {
  const deleted = await query(
    `with expired as (
       select user_id, key from idempotent_requests where created_at <= now() - interval '${KEPT}'
       order by created_at limit $1 for update skip locked
     )
     delete from idempotent_requests as r using expired as e where r.user_id = e.user_id and r.key = e.key
     returning 1`,
    [MAX_DELETED],
  );
  return deleted.length === MAX_DELETED;
}
