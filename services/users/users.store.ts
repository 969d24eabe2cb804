import type { Role, User } from "../../contracts/users";
import type { Database } from "../../mixins/database";
import { generateSigningKey, signingKey, type SigningKey } from "./tokens";

export interface UserRow {
  id: number;
  email: string;
  password_hash: string;
  role: Role;
  created_at: Date;
}

export const present = ({ id, email, role, created_at }: UserRow): User => ({
  id,
  email,
  role,
  created_at: created_at.toISOString(),
});

/** What e-mail addresses are compared by. */
export const emailKey = (email: string): string => email.normalize("NFKC").toLowerCase();

/** Any number that is the same on all nodes. */
const KEY_LOCK = 7_205_760;

/** The signing keys, newest first; makes the first one. Nodes that start together agree on it by a lock. */
export async function loadSigningKeys(db: Database): Promise<SigningKey[]> {
  const rows = await db.transaction(async (query) => {
    await query("select pg_advisory_xact_lock($1)", [KEY_LOCK]);
    const select = "select kid, private_key from signing_keys order by created_at desc, kid";
    const found = await query<{ kid: string; private_key: string }>(select);
    if (found.length > 0) return found;
    const { kid, pem } = await generateSigningKey();
    await query("insert into signing_keys (kid, private_key) values ($1, $2)", [kid, pem]);
    return query<{ kid: string; private_key: string }>(select);
  });
  return rows.map((row) => signingKey(row.kid, row.private_key));
}

/** Makes the first admin; one who is there already is left alone, whatever the environment says. @returns whether it was made */
export async function ensureAdmin(db: Database, email: string, passwordHash: string): Promise<boolean> {
  const made = await db.query(
    "insert into users (email, email_key, password_hash, role) values ($1, $2, $3, 'admin') on conflict (email_key) do nothing returning id",
    [email, emailKey(email), passwordHash],
  );
  return made.length > 0;
}
