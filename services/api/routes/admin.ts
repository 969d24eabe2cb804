import * as accounts from "../../../contracts/accounts";
import * as orders from "../../../contracts/orders";
import { bodyParams, idOr, queryParams, ROW_ID } from "../routing/input";
import { accepted, nextLink, ok } from "../routing/responses";
import { route, type Routes } from "../routing/route";

/** Routes for admins only; nodes.ts has one more. */
export const ADMIN_ROUTES: Routes = {
  "GET /admin/users": route({
    action: accounts.find,
    summary: "The account with an e-mail address",
    statuses: [200],
    errors: ["USER_NOT_FOUND"],
    auth: "admin",
    params: (input) => queryParams(input, accounts.find),
    respond: (account) => ok(account),
  }),
  "PATCH /admin/users/:id": route({
    action: accounts.update,
    summary: "Disables or enables an account, or gives it another role; takes effect everywhere within 2 s",
    statuses: [200],
    errors: ["LAST_ADMIN"],
    auth: "admin",
    supplied: { id: idOr("USER_NOT_FOUND") },
    body: { example: { disabled: false } },
    params: bodyParams,
    respond: (account) => ok(account),
  }),
  "GET /admin/audit-log": route({
    action: accounts.auditLog,
    lane: "lists",
    summary: "Who did what, newest first",
    statuses: [200],
    errors: [],
    auth: "admin",
    params: (input) => queryParams(input, accounts.auditLog),
    respond: (page, input) => ok(page, nextLink("/admin/audit-log", input, page.next_cursor)),
  }),
  "GET /admin/outbox": route({
    action: orders.outbox,
    lane: "lists",
    summary: "Outbox rows that are pending or parked, oldest first",
    statuses: [200],
    errors: [],
    auth: "admin",
    params: (input) => queryParams(input, orders.outbox),
    respond: (page, input) => ok(page, nextLink("/admin/outbox", input, page.next_cursor)),
  }),
  "POST /admin/outbox/:id/replay": route({
    action: orders.replay,
    takesIdempotencyKey: true,
    summary: "Retries a parked outbox row",
    statuses: [202],
    errors: ["NOT_PARKED"],
    auth: "admin",
    supplied: { id: ROW_ID },
    body: "empty",
    params: bodyParams,
    respond: accepted,
  }),
  "GET /admin/consistency": route({
    action: orders.audit,
    lane: "audits",
    summary: "Checks each database, and whether orders and reservations agree",
    statuses: [200],
    errors: [],
    auth: "admin",
    respond: (report) => ok(report),
  }),
  "POST /admin/repair": route({
    action: orders.repair,
    lane: "audits",
    summary: "Repairs differences between orders and reservations after a backup was restored, or reports what it would do",
    statuses: [200],
    errors: [],
    auth: "admin",
    body: { example: { apply: false } },
    params: bodyParams,
    respond: (report) => ok(report),
  }),
};
