import { Type, type Static } from "@sinclair/typebox";
import { action, closed, Cursor, described, Id, Limit, named, nullable, Page, RowId, Text, Timestamp } from "./contract";
import { Role, User } from "./users";

/*
 * The administration of accounts, and the audit log. All of it is for admins and for the console.
 */

export const Account = named("Account", "A user's account, as admins see it.", {
  id: User.properties.id,
  email: User.properties.email,
  role: Role,
  disabled: Type.Boolean({ description: "If true, the user can't log in and has no sessions." }),
  created_at: Timestamp,
});
export type Account = Static<typeof Account>;

/** Finds an account by e-mail. USER_NOT_FOUND if there is none. */
export const find = action("users.find", {
  params: closed({
    email: {
      ...Text({ minLength: 1, maxLength: 254, description: "The whole address, in upper or lower case." }),
      examples: ["ada@example.com"],
    },
  }),
  result: Account,
  idempotent: true,
});

/**
 * Changes the given fields atomically. Disabling an account ends all its sessions. A new role also applies to access tokens that were issued
 * before. Both take effect at every gateway within 2 s. LAST_ADMIN if no enabled admin would be left.
 */
export const update = action("users.update", {
  params: named("Account changes", "Fields that are left out stay as they are.", {
    id: described(Id, "The user's id."),
    disabled: Type.Optional(Type.Boolean({ description: "`true` ends all sessions of the user and prevents new ones." })),
    role: Type.Optional(Role),
  }),
  result: Account,
  idempotent: true,
});

/** `update` by other names, for the console. */
export const disable = action("users.disable", { params: closed({ id: Id }), result: Account, idempotent: true });
export const enable = action("users.enable", { params: closed({ id: Id }), result: Account, idempotent: true });
export const setRole = action("users.setRole", { params: closed({ id: Id, role: Role }), result: Account, idempotent: true });

/** What admins do in other services, to resources of other users. */
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

export const AuditEntry = named("Audit entry", "Who did what to which resource.", {
  id: RowId,
  at: Timestamp,
  actor: described(nullable(Actor), "A user's id, or `system` for the console and the shop itself; null if unknown."),
  action: AuditAction,
  subject: described(
    nullable(Type.String()),
    "The id of the resource that `action` begins with, a user's id for logins and passwords; null if there is none.",
  ),
  address: described(nullable(Type.String()), "The client's IP address; null if there is none."),
  request_id: described(nullable(Type.String()), "The `X-Request-Id` of the request; null if there was none."),
});
export type AuditEntry = Static<typeof AuditEntry>;

/**
 * Newest first. With at most one filter, every page costs the same, however far into the list. With several, entries that
 * match only some of them are read, too: SERVICE_UNAVAILABLE if that takes longer than half a second (about a million entries).
 */
export const auditLog = action("users.auditLog", {
  params: closed({
    actor: Type.Optional(described(Actor, "A user's id, or `system`.")),
    subject: Type.Optional(Subject),
    action: Type.Optional(described(AuditAction, "Only entries of this action.")),
    limit: Type.Optional(Limit),
    cursor: Type.Optional(Cursor),
  }),
  result: Page(AuditEntry),
  idempotent: true,
});

/**
 * Logs what an admin is about to do in another service. It is called before the action, so that nothing is done without an entry; an action
 * that is then refused has one, too. A retry may log the action twice.
 */
export const record = action("users.record", {
  params: closed({ action: ForeignAction, subject: Subject }),
  result: closed({}),
  idempotent: true,
  timeoutMs: 800, // even with one retry, shorter than the timeout of the calling action
});
