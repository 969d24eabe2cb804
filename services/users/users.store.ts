import type { Role, User } from "../../contracts/users";
import type { Database } from "../../mixins/database";
import { record, SYSTEM, type By } from "./audit-log.store";

export interface UserRow {
  id: string;
  email: string;
  email_key: string;
  password_hash: string;
  role: Role;
  created_at: Date;
  disabled_at: Date | null;
}

export const present = ({ id, email, role, created_at }: UserRow): User => ({
  id,
  email,
  role,
  created_at: created_at.toISOString(),
});

/** The form in which e-mail addresses are compared. */
export const emailKey = (email: string): string => email.normalize("NFKC").toLowerCase();

/** Creates the first admin; an existing account is left unchanged, whatever the environment says. @returns whether it was created */
export function ensureAdmin(db: Database, email: string, passwordHash: string): Promise<boolean> {
  return db.transaction(async (query) => {
    const [made] = await query<{ id: string }>(
      "insert into users (email, email_key, password_hash, role) values ($1, $2, $3, 'admin') on conflict (email_key) do nothing returning id",
      [email, emailKey(email), passwordHash],
    );
    if (made !== undefined) await record(query, SYSTEM, "admin.created", made.id);
    return made !== undefined;
  });
}

/** Creates an account. @throws a unique violation if the e-mail address has one, even a disabled one */
export function insertUser(
  db: Database,
  { email, password_hash }: Pick<UserRow, "email" | "password_hash">,
  address: By["address"],
): Promise<UserRow> {
  return db.transaction(async (query) => {
    const [user] = await query<UserRow>(
      `insert into users (email, email_key, password_hash) values ($1, $2, $3)
       returning id, email, email_key, password_hash, role, created_at, disabled_at`,
      [email, emailKey(email), password_hash],
    );
    if (user === undefined) throw new Error("an insert returned no row");
    await record(query, { actor: user.id, address }, "user.registered", user.id);
    return user;
  });
}

/** The highest cost of a stored hash; 0 if there is none. */
export async function highestCost({ query }: Database): Promise<number> {
  // The condition must be that of the partial index.
  const [row] = await query<{ cost: number | null }>(
    "select max(substr(password_hash, 5, 2)::int) as cost from users where password_hash ~ '^\\$2[aby]\\$[0-9]{2}\\$'",
  );
  return row?.cost ?? 0;
}

/** Minutes for which the registration of an account may be repeated. */
const REPEAT_MINUTES = 15;

/** Whether an account is so new that its registration may be repeated: the first response may have been lost. */
export async function isJustRegistered({ query }: Database, id: string): Promise<boolean> {
  const rows = await query(
    "select 1 from users where id = $1 and first_login_at is null and disabled_at is null and created_at > now() - $2 * interval '1 minute'",
    [id, REPEAT_MINUTES],
  );
  return rows.length > 0;
}

/** Replaces the hash by another one of the same password. @returns false if the stored hash has changed since it was compared */
export async function renewHash({ query }: Database, user: UserRow, passwordHash: string): Promise<boolean> {
  const renewed = await query("update users set password_hash = $3 where id = $1 and password_hash = $2 returning 1", [
    user.id,
    user.password_hash,
    passwordHash,
  ]);
  return renewed.length > 0;
}
