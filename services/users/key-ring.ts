import { problem } from "../../broker/errors";
import type { Database, Query } from "../../mixins/database";
import { record, SYSTEM, type By } from "./audit-log.store";
import { KeyEncryptionError, type KeyCipher } from "./key-cipher";
import { isOld, outlived, signer } from "./key-times";
import { deleteAllKeys, deleteKeys, insertKey, lockKeys, raiseTokenTtl, replaceEncrypted, selectKeys, type KeyRow } from "./keys.store";
import { generateSigningKey, signingKey, type SigningKey } from "./tokens";

/** Milliseconds for which a key signs without being read again. */
const FRESH = 1_000;

export interface Keys {
  /** the newest one that every verifier has had time to hear of */
  signing: SigningKey;
  /** all that a verifier needs: this one, those that will sign, and those whose tokens may still live */
  told: readonly SigningKey[];
  /** seconds: the longest life of a token that any of these has signed; ACCESS_TOKEN_TTL may have been lowered since */
  tokenTtl: number;
}

/** The signing keys, the same on all nodes of users: each reads them again while it is asked for them. */
export class KeyRing {
  private readonly parsed = new Map<string, SigningKey>();
  private keys: Keys | undefined;
  private readAt = -Infinity;
  private reading: Promise<Keys> | undefined;

  /** @param ttl seconds that an access token is good for */
  constructor(
    private readonly db: Database,
    private readonly ttl: number,
    private readonly cipher: KeyCipher,
  ) {}

  /**
   * Encrypts what is stored in plaintext or with the older key: to be called at start. Nodes may do it at the same time.
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

  /** What signs. */
  async signing(): Promise<SigningKey> {
    const isFresh = performance.now() - this.readAt < FRESH;
    return (isFresh && this.keys ? this.keys : await this.current()).signing;
  }

  /** Seconds that any access token is good for, at most, by what was read last. */
  get tokenTtl(): number {
    return this.keys?.tokenTtl ?? this.ttl;
  }

  /** As they are now: of two nodes, none may tell less than the other has told. */
  current(): Promise<Keys> {
    this.reading ??= this.read().finally(() => (this.reading = undefined));
    return this.reading;
  }

  /**
   * Makes a new key, which signs as soon as everybody has had time to hear of it.
   * @param atOnce withdraws all others, for keys that have got into other hands: every access token ends, sessions go on
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
    await insertKey(query, { kid, private_key: this.cipher.encrypt(kid, pem), token_ttl: this.ttl });
    await record(query, by, "key.created", kid);
  }

  private async read(): Promise<Keys> {
    let rows = await selectKeys(this.db.query);
    if (isDue(rows, this.ttl))
      rows = await this.locked(async (query) => {
        const due = await selectKeys(query); // another node may have been here first
        if (isDue(due, this.ttl)) await this.tend(query, due);
        return selectKeys(query);
      });
    const told = rows.map((row) => this.parse(row));
    const signing = told[signer(rows)];
    if (signing === undefined) throw new Error("there is no signing key");
    this.readAt = performance.now();
    return (this.keys = { signing, told, tokenTtl: tokenTtl(rows, this.ttl) });
  }

  private async tend(query: Query, keys: readonly KeyRow[]): Promise<void> {
    await raiseTokenTtl(query, this.ttl);
    const over = outlived(keys, tokenTtl(keys, this.ttl)).map(({ kid }) => kid);
    await deleteKeys(query, over);
    for (const kid of over) await record(query, SYSTEM, "key.deleted", kid);
    if (isOld(keys)) await this.insert(query, await generateSigningKey(), SYSTEM);
  }

  /** Decrypted and parsed once: a key stays what it is, however it is stored. */
  private parse({ kid, private_key }: KeyRow): SigningKey {
    let key = this.parsed.get(kid);
    if (key === undefined) this.parsed.set(kid, (key = signingKey(kid, this.decrypt(kid, private_key))));
    return key;
  }

  /** A node that was started before KEY_ENCRYPTION_KEY changed can't read a key that was made since. */
  private decrypt(kid: string, stored: string): string {
    try {
      return this.cipher.decrypt(kid, stored).pem;
    } catch (cause) {
      if (!(cause instanceof KeyEncryptionError)) throw cause;
      throw problem("SERVICE_UNAVAILABLE", "the signing keys can't be read now", { cause });
    }
  }

  private locked<T>(work: (query: Query) => Promise<T>): Promise<T> {
    return this.db.transaction(async (query) => {
      await lockKeys(query);
      return work(query);
    });
  }
}

const tokenTtl = (keys: readonly KeyRow[], ttl: number): number => Math.max(ttl, ...keys.map(({ token_ttl }) => token_ttl));

const isDue = (keys: readonly KeyRow[], ttl: number): boolean =>
  isOld(keys) || keys.some(({ token_ttl }) => token_ttl < ttl) || outlived(keys, tokenTtl(keys, ttl)).length > 0;
