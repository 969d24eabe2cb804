import { Type, type Static } from "@sinclair/typebox";
import { action, closed, Cursor, Id, Limit, nullable, Page, RowId, Text, Timestamp } from "./contract";
import { Role, User } from "./users";

/*
 * What admins do with accounts, and the log of who did what. All of it is for admins and for the console.
 */

/** A person's account as admins see it. A disabled one can't log in, and has no sessions. */
export const Account = closed({
  id: User.properties.id,
  email: User.properties.email,
  role: Role,
  disabled: Type.Boolean(),
  created_at: Timestamp,
});
export type Account = Static<typeof Account>;

/** USER_NOT_FOUND where nobody has this e-mail. */
export const find = action("users.find", {
  params: closed({
    email: {
      ...Text({ minLength: 1, maxLength: 254, description: "The whole address, in upper or lower case." }),
      examples: ["ada@example.com"],
    },
  }),
  result: Account,
  repeatable: true,
});

/**
 * Changes what is given, all of it or nothing. Disabling ends all sessions of the person. A new role counts for the access tokens that
 * they hold, too. Both hold at every gateway within 2 s. LAST_ADMIN where no enabled admin would be left.
 */
export const update = action("users.update", {
  params: closed({ id: Id, disabled: Type.Optional(Type.Boolean()), role: Type.Optional(Role) }),
  result: Account,
  repeatable: true,
});

/** `update` by other names, for the console. */
export const disable = action("users.disable", { params: closed({ id: Id }), result: Account, repeatable: true });
export const enable = action("users.enable", { params: closed({ id: Id }), result: Account, repeatable: true });
export const setRole = action("users.setRole", { params: closed({ id: Id, role: Role }), result: Account, repeatable: true });

/** What admins do in other services, to what is not their own. */
const FOREIGN = ["product.updated", "product.archived", "stock.adjusted", "order.cancelled", "outbox.replayed", "order.repaired"] as const;
const OWN = [
  "admin.created",
  "user.registered",
  "user.disabled",
  "user.enabled",
  "user.promoted",
  "user.demoted",
  "login.succeeded",
  "login.failed",
  "logout",
  "sessions.omitted",
  "password.changed",
  "password.refused",
  "failures.omitted",
  "refresh.reused",
  "key.created",
  "key.deleted",
] as const;

const literals = <T extends string>(names: readonly T[]) => Type.Unsafe<T>({ type: "string", enum: [...names] });
const ForeignAction = literals(FOREIGN);
export type ForeignAction = Static<typeof ForeignAction>;
const AuditAction = literals([...OWN, ...FOREIGN]);
export type AuditAction = Static<typeof AuditAction>;

const Actor = Type.Union([Id, Type.Literal("system")]);
const Subject = Text({ minLength: 1, maxLength: 64, description: "The id of a user, product, order, outbox row or key." });

/**
 * Who did what to what. `actor` is a user's id, or `system` for the console and the shop itself, or null where nobody is known.
 * `subject` is the id of what `action` begins with, a user's for logins and passwords; null where there is none.
 */
export const AuditEntry = closed({
  id: RowId,
  at: Timestamp,
  actor: nullable(Actor),
  action: AuditAction,
  subject: nullable(Type.String()),
  address: nullable(Type.String()),
  request_id: nullable(Type.String()),
});
export type AuditEntry = Static<typeof AuditEntry>;

/**
 * Newest first. With one filter or none, a page costs the same wherever it lies. With more, what the others leave out is read, too:
 * SERVICE_UNAVAILABLE where that takes longer than half a second, about a million entries.
 */
export const auditLog = action("users.auditLog", {
  params: closed({
    actor: Type.Optional({ ...Actor, description: "A user's id, or `system`." }),
    subject: Type.Optional(Subject),
    action: Type.Optional(AuditAction),
    limit: Type.Optional(Limit),
    cursor: Type.Optional(Cursor),
  }),
  result: Page(AuditEntry),
  repeatable: true,
});

/**
 * Logs what an admin is about to do in another service. Called before it is done, so that nothing is done unseen: an entry may
 * name what was then refused. Repeated, it may be logged twice.
 */
export const record = action("users.record", {
  params: closed({ action: ForeignAction, subject: Subject }),
  result: closed({}),
  repeatable: true,
  timeout: 800, // with one repeat within the time of the call that asks
});
