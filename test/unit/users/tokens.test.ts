import { inspect } from "node:util";
import { generateSigningKey, signingKey, successorOf, type SigningKey } from "../../../services/users/tokens";

let key: SigningKey;
let sameKey: SigningKey;
let otherKey: SigningKey;

beforeAll(async () => {
  const { kid, pem } = await generateSigningKey();
  [key, sameKey] = [signingKey(kid, pem), signingKey(kid, pem)];
  const other = await generateSigningKey();
  otherKey = signingKey(other.kid, other.pem);
});

it("a refresh token has the same successor on every node, of 256 bits", () => {
  const successor = successorOf("a token", key);
  expect(successor).toMatch(/^[\w-]{43}$/);
  expect(successorOf("a token", sameKey)).toBe(successor);
});

it("another token, or another key, has another successor", () => {
  const all = [successorOf("a", key), successorOf("b", key), successorOf(successorOf("a", key), key), successorOf("a", otherKey)];
  expect(new Set(all).size).toBe(all.length);
});

it("a key prints without the secret that derives successors", () => {
  const secret = key.refreshSecret.export();
  const printed = [JSON.stringify(key), inspect(key, { depth: Infinity, showHidden: true })].join();
  for (const form of ["hex", "base64", "base64url"] as const) expect(printed).not.toContain(secret.toString(form));
});
