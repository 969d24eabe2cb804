import type { Role, User } from "../../contracts/users";
import type { Database } from "../../mixins/database";

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

/** Makes the first admin; one who is there already is left alone, whatever the environment says. @returns whether it was made */
export async function ensureAdmin(db: Database, email: string, passwordHash: string): Promise<boolean> {
  const made = await db.query(
    "insert into users (email, email_key, password_hash, role) values ($1, $2, $3, 'admin') on conflict (email_key) do nothing returning id",
    [email, emailKey(email), passwordHash],
  );
  return made.length > 0;
}
