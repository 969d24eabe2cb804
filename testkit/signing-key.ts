import { signingKey, type SigningKey } from "../services/users/tokens";
import { sql } from "./sql";

/** The signing key. Without KEY_ENCRYPTION_KEY it is stored in plaintext. */
export async function shopKey(usersDatabase: string): Promise<SigningKey> {
  const [row] = await sql<{ kid: string; private_key: string }>(
    usersDatabase,
    "select kid, private_key from signing_keys order by created_at desc, kid limit 1",
  );
  if (row === undefined) throw new Error("the shop has no signing key");
  return signingKey(row.kid, row.private_key);
}
