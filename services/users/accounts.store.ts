import type { Account } from "../../contracts/accounts";
import type { ChangedRole } from "../../contracts/users";
import type { Database } from "../../mixins/database";
import { change, type State } from "./accounts";
import { record, type By } from "./audit-log.store";
import { LATE_SECONDS, SINCE } from "./sessions.store";
import { emailKey } from "./users.store";

type AccountRow = Omit<Account, "created_at"> & { created_at: Date };
const COLUMNS = "id, email, role, disabled_at is not null as disabled, created_at";

const present = (row: AccountRow): Account => ({ ...row, created_at: row.created_at.toISOString() });

export async function findAccount({ query }: Database, email: string): Promise<Account | undefined> {
  const [row] = await query<AccountRow>(`select ${COLUMNS} from users where email_key = $1`, [emailKey(email)]);
  return row && present(row);
}

/** The account after a change, or why it was refused. FORBIDDEN: the caller is no longer an admin, which gateways may not know yet. */
export type Changed = { ok: true; account: Account } | { ok: false; refusal: "USER_NOT_FOUND" | "LAST_ADMIN" | "FORBIDDEN" };

/**
 * Changes an account, ends its sessions if it is disabled, and writes the audit log, all in one transaction. All enabled admins are
 * locked first, in id order: if two demote or disable each other at the same time, the second transaction sees the first one's change.
 */
export function changeAccount(db: Database, by: By, id: string, changes: Partial<State>): Promise<Changed> {
  return db.transaction(async (query) => {
    const admins = await query<{ id: string }>(
      "select id from users where role = 'admin' and disabled_at is null order by id for no key update",
    );
    if (by.actor !== "system" && !admins.some((admin) => admin.id === by.actor)) return { ok: false, refusal: "FORBIDDEN" };
    const [before] = await query<AccountRow>(`select ${COLUMNS} from users where id = $1 for no key update`, [id]);
    if (before === undefined) return { ok: false, refusal: "USER_NOT_FOUND" };
    const changed = change(before, changes, admins.filter((admin) => admin.id !== id).length);
    if (!changed.ok) return changed;
    const { after, events } = changed;
    if (events.length === 0) return { ok: true, account: present(before) };

    await query(
      `update users set role = $2, disabled_at = case when $3 then coalesce(disabled_at, clock_timestamp()) end,
         role_changed_at = case when role <> $2 then clock_timestamp() else role_changed_at end
       where id = $1`,
      [id, after.role, after.disabled],
    );
    if (after.disabled) await query("update sessions set ended_at = clock_timestamp() where user_id = $1 and ended_at is null", [id]);
    for (const event of events) await record(query, by, event, id);
    return { ok: true, account: present({ ...before, ...after }) };
  });
}

/** Maximum changed roles per result, the newest first. More than admins can change in the 16 s that a gateway's poll covers. */
const MAX_ROLES = 10_000;

/**
 * The current roles of users whose role has changed since a given time, while an access token with the old role may still be valid: a
 * refresh that has read the old role may sign a token slightly later.
 * @param since as in `endedSessions`
 * @param ttlSeconds maximum lifetime of any access token
 */
export function changedRoles({ query }: Database, since: string | undefined, ttlSeconds: number): Promise<ChangedRole[]> {
  return query<ChangedRole>(
    `select id as user, role, ceil(extract(epoch from role_changed_at))::bigint + $2::int + $3::int as until
     from users
     where role_changed_at > ${SINCE}
     order by role_changed_at desc limit $4`,
    [since ?? "-infinity", ttlSeconds, LATE_SECONDS, MAX_ROLES],
  );
}
