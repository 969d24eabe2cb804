import type { Query } from "../../mixins/database";

export interface KeyRow {
  kid: string;
  /** as KeyCipher stores it */
  private_key: string;
  /** seconds since it was created */
  age_seconds: number;
  /** seconds: maximum lifetime of the tokens that it has signed, on any node */
  token_ttl: number;
}

/** An arbitrary number, the same on all nodes. */
const KEY_LOCK = 7_205_760;

/** Serialises changes of keys across all nodes, until the transaction ends. */
export async function lockKeys(query: Query): Promise<void> {
  await query("select pg_advisory_xact_lock($1)", [KEY_LOCK]);
}

/** Newest first. */
export const selectKeys = (query: Query): Promise<KeyRow[]> =>
  query(
    "select kid, private_key, extract(epoch from now() - created_at)::float8 as age_seconds, token_ttl from signing_keys order by created_at desc, kid",
  );

export async function insertKey(query: Query, key: Pick<KeyRow, "kid" | "private_key" | "token_ttl">): Promise<void> {
  await query("insert into signing_keys (kid, private_key, token_ttl) values ($1, $2, $3)", [key.kid, key.private_key, key.token_ttl]);
}

export async function replaceEncrypted(query: Query, kid: string, private_key: string): Promise<void> {
  await query("update signing_keys set private_key = $2 where kid = $1", [kid, private_key]);
}

/** The nodes may differ in ACCESS_TOKEN_TTL: the longest one counts. */
export async function raiseTokenTtl(query: Query, ttlSeconds: number): Promise<void> {
  await query("update signing_keys set token_ttl = $1 where token_ttl < $1", [ttlSeconds]);
}

export async function deleteKeys(query: Query, kids: readonly string[]): Promise<void> {
  await query("delete from signing_keys where kid = any($1)", [kids]);
}

/** @returns their ids */
export async function deleteAllKeys(query: Query): Promise<string[]> {
  return (await query<{ kid: string }>("delete from signing_keys returning kid")).map(({ kid }) => kid);
}
