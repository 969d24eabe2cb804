import type { AuditAction } from "../../contracts/accounts";
import type { Role } from "../../contracts/users";

/*
 * Decides what a change of an account results in. Pure.
 */

export interface State {
  readonly role: Role;
  readonly disabled: boolean;
}

/** A change of an account, for the audit log. */
type AccountEvent = Extract<AuditAction, "user.disabled" | "user.enabled" | "user.promoted" | "user.demoted">;
type Change = { ok: true; after: State; events: AccountEvent[] } | { ok: false; refusal: "LAST_ADMIN" };

/** No events if nothing changes. @param otherAdmins number of enabled admins besides this account */
export function change(before: State, { role = before.role, disabled = before.disabled }: Partial<State>, otherAdmins: number): Change {
  const after = { role, disabled };
  if (isAdmin(before) && !isAdmin(after) && otherAdmins === 0) return { ok: false, refusal: "LAST_ADMIN" };
  const events: AccountEvent[] = [];
  if (disabled !== before.disabled) events.push(disabled ? "user.disabled" : "user.enabled");
  if (role !== before.role) events.push(role === "admin" ? "user.promoted" : "user.demoted");
  return { ok: true, after, events };
}

const isAdmin = ({ role, disabled }: State): boolean => role === "admin" && !disabled;
