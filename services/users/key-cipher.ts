import { createCipheriv, createDecipheriv, randomBytes, type KeyObject } from "node:crypto";

const ALGORITHM = "aes-256-gcm";
const NONCE_BYTES = 12;
const TAG_BYTES = 16;
const ENCRYPTED = /^aes-256-gcm:([A-Za-z0-9_-]+):([A-Za-z0-9_-]+)$/;

/** A signing key can't be decrypted. The message is for operators and contains no secret. */
export class KeyEncryptionError extends Error {}

interface KeyEncryption {
  /** AES-256. If undefined, signing keys are stored in plaintext. */
  key: KeyObject | undefined;
  /** The key used before `key`, only for decrypting. */
  older: KeyObject | undefined;
}

/**
 * Encrypts signing keys for storage, as `aes-256-gcm:<nonce>:<ciphertext and tag>`, or as plain PEM if no key is configured. The key id
 * is authenticated, too (NIST SP 800-38D): an encrypted key that was moved to another key's row can't be decrypted.
 */
export class KeyCipher {
  constructor(private readonly keys: KeyEncryption) {}

  encrypt(kid: string, pem: string): string {
    const { key } = this.keys;
    if (key === undefined) return pem;
    const nonce = randomBytes(NONCE_BYTES);
    const cipher = createCipheriv(ALGORITHM, key, nonce, { authTagLength: TAG_BYTES }).setAAD(Buffer.from(kid));
    const sealed = Buffer.concat([cipher.update(pem, "utf8"), cipher.final(), cipher.getAuthTag()]);
    return `${ALGORITHM}:${nonce.toString("base64url")}:${sealed.toString("base64url")}`;
  }

  /**
   * @returns the PEM, and whether it is stored as `encrypt` would store it now
   * @throws KeyEncryptionError
   */
  decrypt(kid: string, stored: string): { pem: string; isCurrent: boolean } {
    const { key, older } = this.keys;
    if (stored.startsWith("-----BEGIN ")) return { pem: stored, isCurrent: key === undefined };
    if (key === undefined) throw new KeyEncryptionError(`KEY_ENCRYPTION_KEY is missing: signing key ${kid} in user_db is encrypted`);
    const pem = open(key, kid, stored);
    if (pem !== undefined) return { pem, isCurrent: true };
    const byOlder = older && open(older, kid, stored);
    if (byOlder !== undefined) return { pem: byOlder, isCurrent: false };
    const tried =
      older === undefined ? "KEY_ENCRYPTION_KEY does not decrypt" : "Neither KEY_ENCRYPTION_KEY nor KEY_ENCRYPTION_KEY_OLD decrypts";
    throw new KeyEncryptionError(`${tried} signing key ${kid} in user_db: it was encrypted with another key, or changed since`);
  }
}

/** @returns undefined if the key is wrong or the stored value was changed, which GCM can't distinguish */
function open(key: KeyObject, kid: string, stored: string): string | undefined {
  const [, nonce = "", rest = ""] = ENCRYPTED.exec(stored) ?? [];
  const sealed = Buffer.from(rest, "base64url");
  if (sealed.length <= TAG_BYTES) return undefined;
  try {
    const decipher = createDecipheriv(ALGORITHM, key, Buffer.from(nonce, "base64url"), { authTagLength: TAG_BYTES })
      .setAAD(Buffer.from(kid))
      .setAuthTag(sealed.subarray(-TAG_BYTES));
    return Buffer.concat([decipher.update(sealed.subarray(0, -TAG_BYTES)), decipher.final()]).toString("utf8");
  } catch {
    return undefined; // authentication failed
  }
}
