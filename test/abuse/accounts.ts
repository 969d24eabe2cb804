import bcrypt from "bcryptjs";
import { loadConfig } from "../../config";
import { issueToken } from "../../services/users/tokens";
import { shopKey } from "../../testkit/signing-key";
import type { Shop } from "./shop";

/** The attacker's address. */
export const ATTACKER_ADDRESS = "127.0.0.2";
const VICTIMS = 4;
const ATTACKERS = 100;
const TOKEN_SECONDS = 86_400;

export const PASSWORD = "correct horse battery";

/** A legitimate user with their own address. */
export interface VictimAccount {
  email: string;
  address: string;
}

/** An account with an access token, such as one of the attacker's. */
export interface Account {
  id: string;
  email: string;
  token: string;
}

export interface Accounts {
  victims: VictimAccount[];
  attackers: Account[];
  admins: Account[];
}

/**
 * Inserts all accounts by SQL, since a registration or a login takes a third of a second of CPU. Victims log in themselves; the tokens of the
 * attacker and of admins are signed here.
 */
export async function insertAccounts(shop: Shop): Promise<Accounts> {
  const { bcryptCost } = loadConfig({});
  const hash = await bcrypt.hash(PASSWORD, bcryptCost);
  const insert = (name: string, count: number, role: string): Promise<Omit<Account, "token">[]> =>
    shop.sql(
      "users",
      `insert into users (email, email_key, password_hash, role)
       select $1 || n || '@abuse.test', $1 || n || '@abuse.test', $2, $3 from generate_series(1, $4::int) as n
       returning id, email`,
      [name, hash, role, count],
    );
  const key = await shopKey(shop.databaseUrl("users"));
  const withToken = async (accounts: Omit<Account, "token">[], role: "user" | "admin"): Promise<Account[]> => {
    const sessions = await shop.sql<{ user_id: string; session: string }>(
      "users",
      `insert into sessions (user_id, expires_at) select id, now() + interval '1 day' from unnest($1::uuid[]) as id
       returning user_id, id as session`,
      [accounts.map(({ id }) => id)],
    );
    const sessionOf = new Map(sessions.map(({ user_id, session }) => [user_id, session]));
    return accounts.map((account) => ({
      ...account,
      token: issueToken(key, { id: account.id, role, session: sessionOf.get(account.id) ?? "" }, TOKEN_SECONDS),
    }));
  };
  const victims = await insert("victim", VICTIMS, "user");
  const attackers = await withToken(await insert("attacker", ATTACKERS, "user"), "user");
  const admins = await withToken(await insert("admin", 2, "admin"), "admin");
  return {
    victims: victims.map(({ email }, n) => ({ email, address: `127.0.0.${3 + n}` })),
    attackers,
    admins,
  };
}
