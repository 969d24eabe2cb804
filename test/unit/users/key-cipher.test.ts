import { createSecretKey, generateKeyPairSync, type KeyObject } from "node:crypto";
import fc from "fast-check";
import { KeyCipher, KeyEncryptionError } from "../../../services/users/key-cipher";

const secret = (byte: number): KeyObject => createSecretKey(Buffer.alloc(32, byte));
const [OLD, NEW, OTHER] = [secret(1), secret(2), secret(3)];
const cipher = (key?: KeyObject, older?: KeyObject): KeyCipher => new KeyCipher({ key, older });
const PEM = generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey.export({ type: "pkcs8", format: "pem" }).toString();
const KID = "k1";

it("without a key, a signing key is stored as it is", () => {
  expect(cipher().encrypt(KID, PEM)).toBe(PEM);
  expect(cipher().decrypt(KID, PEM)).toEqual({ pem: PEM, isCurrent: true });
});

it("with a key, nothing of the signing key is visible, and it is decrypted unchanged", () => {
  const stored = cipher(NEW).encrypt(KID, PEM);
  expect(stored).toMatch(/^aes-256-gcm:[\w-]{16}:[\w-]+$/);
  for (const line of PEM.trim().split("\n")) expect(Buffer.from(stored.split(":")[2]!, "base64url").toString("latin1")).not.toContain(line);
  expect(cipher(NEW).decrypt(KID, stored)).toEqual({ pem: PEM, isCurrent: true });
});

it("each encryption uses a new nonce", () => {
  const stored = Array.from({ length: 100 }, () => cipher(NEW).encrypt(KID, PEM));
  expect(new Set(stored.map((text) => text.split(":")[1])).size).toBe(100);
});

it("a signing key in plaintext, or encrypted with the older key, can be read and is not current", () => {
  expect(cipher(NEW, OLD).decrypt(KID, PEM)).toEqual({ pem: PEM, isCurrent: false });
  expect(cipher(NEW, OLD).decrypt(KID, cipher(OLD).encrypt(KID, PEM))).toEqual({ pem: PEM, isCurrent: false });
  expect(cipher(NEW, OLD).decrypt(KID, cipher(NEW).encrypt(KID, PEM))).toEqual({ pem: PEM, isCurrent: true });
});

it.each<[what: string, KeyCipher, because: RegExp]>([
  ["no key", cipher(), /^KEY_ENCRYPTION_KEY is missing: .* k1 /],
  ["another key", cipher(OTHER), /^KEY_ENCRYPTION_KEY does not decrypt signing key k1 /],
  ["two other keys", cipher(OTHER, OLD), /^Neither KEY_ENCRYPTION_KEY nor KEY_ENCRYPTION_KEY_OLD decrypts signing key k1 /],
])("with %s it can't be decrypted, and the error names the reason", (_what, wrong, because) => {
  const stored = cipher(NEW).encrypt(KID, PEM);
  expect(() => wrong.decrypt(KID, stored)).toThrow(KeyEncryptionError);
  expect(() => wrong.decrypt(KID, stored)).toThrow(because);
});

it("in the row of another key id it can't be decrypted", () => {
  expect(() => cipher(NEW).decrypt("k2", cipher(NEW).encrypt(KID, PEM))).toThrow(KeyEncryptionError);
});

it("a changed, truncated or never encrypted value can't be decrypted, and the error reveals nothing of it", () => {
  const stored = cipher(NEW).encrypt(KID, PEM);
  const refused = (text: string): void => {
    let message = "";
    try {
      cipher(NEW, OLD).decrypt(KID, text);
    } catch (error) {
      expect(error).toBeInstanceOf(KeyEncryptionError);
      message = (error as Error).message;
    }
    expect(message).toMatch(/^Neither/);
    if (text.length > 20) expect(message).not.toContain(text.slice(-20));
  };
  const [, nonce = "", sealed = ""] = stored.split(":");
  const bytes = Buffer.from(sealed, "base64url");
  for (let i = 0; i < bytes.length; i += 7) {
    const changed = Buffer.from(bytes);
    changed[i]! ^= 1;
    refused(`aes-256-gcm:${nonce}:${changed.toString("base64url")}`);
  }
  // a shorter tag would be easier to guess
  for (const length of [0, 4, 12, 16, bytes.length - 1]) refused(`aes-256-gcm:${nonce}:${bytes.subarray(0, length).toString("base64url")}`);
  for (const other of ["", "A", nonce.slice(4), `${nonce}AAAA`]) refused(`aes-256-gcm:${other}:${sealed}`);
  for (const text of ["", "aes-256-gcm", "aes-256-gcm::", stored.toUpperCase(), ` ${stored}`, stored.replace("gcm", "cbc")]) refused(text);
});

it("any key id and any PEM are decrypted unchanged", () => {
  fc.assert(
    fc.property(fc.string({ unit: "grapheme" }), fc.string({ unit: "grapheme", minLength: 1 }), (kid, pem) => {
      expect(cipher(NEW).decrypt(kid, cipher(NEW).encrypt(kid, pem)).pem).toBe(pem);
    }),
    { numRuns: 200 },
  );
});
