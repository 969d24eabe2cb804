import { createHash } from "node:crypto";
import type { Database } from "../../mixins/database";

/** Maximum addresses stored per user: the most recently used. */
const MAX_ADDRESSES = 20;
const MAX_AGE_DAYS = 90;
/** Minimum time between two updates of an address's last use, so that few logins need an extra write. */
const PRECISION_HOURS = 1;
const MAX_DELETED = 10_000;

const hashOf = (userId: string, address: string): Buffer =>
  createHash("sha256")
    .update(JSON.stringify([userId, address]))
    .digest();

/** Whether a user has logged in from an address before. */
export async function isKnownAddress({ query }: Database, userId: string, address: string): Promise<boolean> {
  const known = await query(
    "select 1 from known_addresses where user_id = $1 and address = $2 and last_used_at > now() - $3 * interval '1 day'",
    [userId, hashOf(userId, address), MAX_AGE_DAYS],
  );
  return known.length > 0;
}

/** Stores that a user has logged in from an address, and deletes the least recently used ones above the maximum. */
export async function rememberAddress({ query }: Database, userId: string, address: string): Promise<void> {
  const written = await query<{ is_new: boolean }>(
    `insert into known_addresses as k (user_id, address) values ($1, $2)
     on conflict (user_id, address) do update set last_used_at = now() where k.last_used_at < now() - $3 * interval '1 hour'
     returning xmax = 0 as is_new`,
    [userId, hashOf(userId, address), PRECISION_HOURS],
  );
  if (written[0]?.is_new !== true) return;
  await query(
    `delete from known_addresses where user_id = $1 and address in (
       select address from known_addresses where user_id = $1 order by last_used_at desc offset $2
     )`,
    [userId, MAX_ADDRESSES],
  );
}

/** Deletes addresses that have not been used for MAX_AGE_DAYS. @returns whether there may be more */
export async function deleteExpiredAddresses({ query }: Database): Promise<boolean> {
  const deleted = await query(
    `delete from known_addresses where (user_id, address) in (
       select user_id, address from known_addresses where last_used_at < now() - $1 * interval '1 day' limit $2
     ) returning 1`,
    [MAX_AGE_DAYS, MAX_DELETED],
  );
  return deleted.length === MAX_DELETED;
}
