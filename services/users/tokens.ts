import {
  createHash,
  createHmac,
  createPrivateKey,
  createPublicKey,
  createSecretKey,
  generateKeyPair,
  hkdfSync,
  randomUUID,
  type KeyObject,
} from "node:crypto";
import { promisify } from "node:util";
import jwt from "jsonwebtoken";
import { AUDIENCE, ISSUER, type Caller, type Jwk } from "../../contracts/users";

/** RFC 8725, section 3.5, requires at least 2048 bits. */
const MODULUS_BITS = 2048;

/** The purpose of `refreshSecret`: part of its derivation, so that no other secret derived from the same key equals it (RFC 5869, 3.2). */
const REFRESH_PURPOSE = "moleculer-shop refresh tokens";
const SECRET_BYTES = 32;

export interface SigningKey {
  kid: string;
  privateKey: KeyObject;
  /** Derives refresh tokens while this key signs: the same on every node, without being stored anywhere. */
  refreshSecret: KeyObject;
}

/** @returns a new private key as PEM, and its id, the key's thumbprint (RFC 7638), which identifies this key only */
export async function generateSigningKey(): Promise<{ kid: string; pem: string }> {
  const { privateKey, publicKey } = await promisify(generateKeyPair)("rsa", { modulusLength: MODULUS_BITS });
  const { e, kty, n } = publicKey.export({ format: "jwk" });
  const kid = createHash("sha256").update(JSON.stringify({ e, kty, n })).digest("base64url");
  return { kid, pem: privateKey.export({ type: "pkcs8", format: "pem" }).toString() };
}

/** Parse each key only once: parsing a PEM takes longer than signing. */
export function signingKey(kid: string, pem: string): SigningKey {
  const privateKey = createPrivateKey(pem);
  const bytes = privateKey.export({ type: "pkcs8", format: "der" });
  const secret = hkdfSync("sha256", bytes, "", REFRESH_PURPOSE, SECRET_BYTES);
  return { kid, privateKey, refreshSecret: createSecretKey(Buffer.from(secret)) };
}

/** The refresh token that replaces another one: the same each time, 256 bits, unpredictable without the key. */
export const successorOf = (refreshToken: string, { refreshSecret }: SigningKey): string =>
  createHmac("sha256", refreshSecret).update(refreshToken).digest("base64url");

export function publicJwk({ kid, privateKey }: SigningKey): Jwk {
  const { n, e } = createPublicKey(privateKey).export({ format: "jwk" });
  if (n === undefined || e === undefined) throw new Error(`signing key ${kid} is not an RSA key`);
  return { kty: "RSA", n, e, kid, alg: "RS256", use: "sig" };
}

/** An access token: a JWT (RFC 7519) with iss, aud, sub, role, sid, jti, iat and exp, signed RS256 under a key id. */
export function issueToken({ kid, privateKey }: SigningKey, { id, role, session }: Required<Caller>, ttlSeconds: number): string {
  return jwt.sign({ role, sid: session }, privateKey, {
    algorithm: "RS256",
    keyid: kid,
    issuer: ISSUER,
    audience: AUDIENCE,
    subject: id,
    jwtid: randomUUID(),
    expiresIn: ttlSeconds,
  });
}
