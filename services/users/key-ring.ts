import { problem } from "../../broker/errors";
import type { Database, Query } from "../../mixins/database";
import { record, SYSTEM, type By } from "./audit-log.store";
import { KeyEncryptionError, type KeyCipher } from "./key-cipher";
import { isOld, expiredKeys, signer } from "./key-times";
import { deleteAllKeys, deleteKeys, insertKey, lockKeys, raiseTokenTtl, replaceEncrypted, selectKeys, type KeyRow } from "./keys.store";
import { generateSigningKey, signingKey, type SigningKey } from "./tokens";

/** Milliseconds for which the keys are cached. */
const FRESH_MS = 1_000;

interface Keys {
  /** the newest one that every verifier has had time to fetch */
  signing: SigningKey;
  /** the published keys: the signing key, future signing keys, and those whose tokens may still be valid */
  published: readonly SigningKey[];
  /** seconds: maximum lifetime of a token signed by any of these; ACCESS_TOKEN_TTL may have been lowered since */
  tokenTtlSeconds: number;
}

/** The signing keys, shared by all users nodes through the database. */
export class KeyRing {
  private readonly parsed = new Map<string, SigningKey>();
  private keys: Keys | undefined;
  private readAt = -Infinity;
  private reading: Promise<Keys> | undefined;

  /** @param ttlSeconds lifetime of access tokens */
  constructor(
    private readonly db: Database,
    private readonly ttlSeconds: number,
    private readonly cipher: KeyCipher,
  ) {}

  /**
   * Encrypts keys that are stored in plaintext or under the older key. Call at start; nodes may do so concurrently.
   * @returns how many keys it encrypted
   * @throws KeyEncryptionError if one can't be decrypted
   */
  reencrypt(): Promise<number> {
    return this.locked(async (query) => {
      let count = 0;
      for (const { kid, private_key } of await selectKeys(query)) {
        const { pem, isCurrent } = this.cipher.decrypt(kid, private_key);
        if (isCurrent) continue;
        await replaceEncrypted(query, kid, this.cipher.encrypt(kid, pem));
        count++;
      }
      return count;
    });
  }

  /** The keys as they were at most a second ago. */
  async recent(): Promise<Keys> {
    const isFresh = performance.now() - this.readAt < FRESH_MS;
    return isFresh && this.keys ? this.keys : await this.current();
  }

  /** Maximum lifetime of any access token in seconds, by the keys read last. */
  get tokenTtlSeconds(): number {
    return this.keys?.tokenTtlSeconds ?? this.ttlSeconds;
  }

  /** Reads the keys from the database: no node may publish fewer keys than another has published. */
  current(): Promise<Keys> {
    this.reading ??= this.read().finally(() => (this.reading = undefined));
    return this.reading;
  }

  /**
   * Creates a new key, which signs as soon as all verifiers have had time to fetch it.
   * @param atOnce deletes all other keys, for leaked ones: every access token becomes invalid, sessions continue
   */
  async rotate(atOnce: boolean, by: By): Promise<string> {
    const key = await generateSigningKey();
    await this.locked(async (query) => {
      if (atOnce) for (const kid of await deleteAllKeys(query)) await record(query, by, "key.deleted", kid);
      await this.insert(query, key, by);
    });
    await this.current();
    return key.kid;
  }

  private async insert(query: Query, { kid, pem }: { kid: string; pem: string }, by: By): Promise<void> {
    await insertKey(query, { kid, private_key: this.cipher.encrypt(kid, pem), token_ttl: this.ttlSeconds });
    await record(query, by, "key.created", kid);
  }

  private async read(): Promise<Keys> {
    let rows = await selectKeys(this.db.query);
    if (isDue(rows, this.ttlSeconds))
      rows = await this.locked(async (query) => {
        const due = await selectKeys(query); // another node may have done it already
        if (isDue(due, this.ttlSeconds)) await this.replaceKeys(query, due);
        return selectKeys(query);
      });
    const published = rows.map((row) => this.parse(row));
    const signing = published[signer(rows)];
    if (signing === undefined) throw new Error("there is no signing key");
    this.readAt = performance.now();
    return (this.keys = { signing, published, tokenTtlSeconds: tokenTtlSeconds(rows, this.ttlSeconds) });
  }

  private async replaceKeys(query: Query, keys: readonly KeyRow[]): Promise<void> {
    await raiseTokenTtl(query, this.ttlSeconds);
    const expired = expiredKeys(keys, tokenTtlSeconds(keys, this.ttlSeconds)).map(({ kid }) => kid);
    await deleteKeys(query, expired);
    for (const kid of expired) await record(query, SYSTEM, "key.deleted", kid);
    if (isOld(keys)) await this.insert(query, await generateSigningKey(), SYSTEM);
  }

  /** Decrypts and parses a key once: re-encryption does not change the key itself. */
  private parse({ kid, private_key }: KeyRow): SigningKey {
    let key = this.parsed.get(kid);
    if (key === undefined) this.parsed.set(kid, (key = signingKey(kid, this.decrypt(kid, private_key))));
    return key;
  }

  /** A node that was started before KEY_ENCRYPTION_KEY changed can't decrypt keys created since. */
  private decrypt(kid: string, stored: string): string {
    try {
      return this.cipher.decrypt(kid, stored).pem;
    } catch (cause) {
      if (!(cause instanceof KeyEncryptionError)) throw cause;
      throw problem("SERVICE_UNAVAILABLE", "the signing keys can't be decrypted", { cause });
    }
  }

  private locked<T>(work: (query: Query) => Promise<T>): Promise<T> {
    return this.db.transaction(async (query) => {
      await lockKeys(query);
      return work(query);
    });
  }
}

const tokenTtlSeconds = (keys: readonly KeyRow[], ttlSeconds: number): number =>
  Math.max(ttlSeconds, ...keys.map(({ token_ttl }) => token_ttl));

const isDue = (keys: readonly KeyRow[], ttlSeconds: number): boolean =>
  isOld(keys) || keys.some(({ token_ttl }) => token_ttl < ttlSeconds) || expiredKeys(keys, tokenTtlSeconds(keys, ttlSeconds)).length > 0;
