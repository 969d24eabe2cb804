import * as accounts from "../../../contracts/accounts";
import * as api from "../../../contracts/api";
import type { ActionContract } from "../../../contracts/contract";
import * as oauth from "../../../contracts/oauth";
import * as operations from "../../../contracts/operations";
import * as orders from "../../../contracts/orders";
import * as products from "../../../contracts/products";
import * as users from "../../../contracts/users";

/** What the OpenAPI document says about an operation in addition to its summary. */
interface Operation {
  /** The name of the method in a generated client. */
  id: string;
  /** Markdown, if the route has none. */
  description?: string;
}

/** By the name of the contract. */
const OPERATIONS: Readonly<Record<string, Operation>> = {
  [users.register.name]: {
    id: "register",
    description:
      "The same registration may be repeated for 15 minutes and until the first login: it returns the same account. Another password for a registered address is refused, and counts as a failed login.",
  },
  [users.token.name]: {
    id: "logIn",
    description:
      "Opens a session, which lasts as long as its tokens are refreshed. The form is that of OAuth 2.0 (RFC 6749, sections 4.3 and 6), and so are its errors of status 400.",
  },
  [users.refresh.name]: {
    id: "refreshTokens",
    description:
      "A refresh token that is used again within a few seconds gets the same new refresh token, so that the request may be repeated after a lost response. Later use ends the session, since the token may have been stolen.",
  },
  [users.logout.name]: {
    id: "logOut",
    description: "Access tokens of the session are refused by every gateway within two seconds.",
  },
  [users.me.name]: { id: "getMe", description: "The account to which the access token belongs." },
  [users.changePassword.name]: { id: "changePassword", description: "The session of the access token stays active." },
  [users.jwks.name]: {
    id: "getPublicKeys",
    description:
      "A key is published before it signs, and until its last token has expired. The response may be cached for the time in `Cache-Control`.",
  },
  [oauth.authorizationServer.name]: {
    id: "getAuthorizationServer",
    description: "Describes `POST /token` to OAuth libraries.",
  },
  [products.create.name]: { id: "createProduct", description: "The quantity, unless 0, is the first entry of the product's ledger." },
  [products.list.name]: {
    id: "listProducts",
    description:
      "A product must match all parameters. A page ends at its `limit` or at 256 KiB, so a short page is not necessarily the last one: only a `next_cursor` of null means that there are no more.",
  },
  [products.get.name]: { id: "getProduct", description: "A product that was taken off sale is not found." },
  [products.update.name]: {
    id: "updateProduct",
    description:
      "Only the given fields change. The stock has an operation of its own. Orders keep the name and the price that they were placed with.",
  },
  [products.archive.name]: {
    id: "archiveProduct",
    description: "The product is no longer found, listed or ordered. Its ledger is kept as well.",
  },
  [products.adjust.name]: { id: "adjustStock", description: "Every change becomes an entry of the product's ledger." },
  [products.ledger.name]: {
    id: "listStockMovements",
    description: "The initial stock, adjustments, and the units that orders have reserved or released.",
  },
  [orders.create.name]: {
    id: "createOrder",
    description:
      "The order is stored when the response arrives, and its stock is reserved afterwards: follow the order, or read it again, to see its final status. Send an `Idempotency-Key`, and the request may be repeated after any failure.",
  },
  [orders.list.name]: {
    id: "listOrders",
    description: "`user_id` and `all` are for admins, and contradict each other. A page ends at its `limit` or at 256 KiB.",
  },
  [orders.get.name]: { id: "getOrder", description: "An order of another user is not found, except by an admin." },
  [api.orderEvents.name]: { id: "followOrder" }, // the route has its own description
  [orders.cancel.name]: {
    id: "cancelOrder",
    description: "The stock is released shortly after the response. Cancelling a cancelled order again returns it unchanged.",
  },
  [accounts.find.name]: { id: "findAccount", description: "Finds the account by its whole e-mail address, in upper or lower case." },
  [accounts.update.name]: {
    id: "updateAccount",
    description:
      "Disabling an account ends its sessions. A new role also applies to tokens that were issued before. The last enabled admin can be neither disabled nor demoted.",
  },
  [accounts.auditLog.name]: {
    id: "listAuditLog",
    description:
      "Logins, accounts, passwords, keys, and what admins do to resources of other users. With several filters a page may take too long and get 503: then filter by one of them.",
  },
  [orders.outbox.name]: {
    id: "listOutboxRows",
    description: "Pending rows are republished until the consumer replies. Parked ones are not: remove the cause, then replay them.",
  },
  [orders.replay.name]: { id: "replayOutboxRow", description: "The row becomes pending again, as if it were new." },
  [orders.audit.name]: {
    id: "checkConsistency",
    description: "Reads every order and every reservation, which takes a while in a large shop.",
  },
  [orders.repair.name]: {
    id: "repairOrders",
    description:
      "At most 100 repairs are made or listed per request. Differences that only a person can decide are listed and stay as they are.",
  },
  [api.nodes.name]: { id: "listNodes", description: "Nodes that don't report their state within a second are listed without it." },
  [operations.operations.name]: { id: "watchOperations" }, // the route has its own description
  [api.live.name]: { id: "getLiveness", description: "For supervisors that restart a process." },
  [api.ready.name]: {
    id: "getReadiness",
    description: "For load balancers: 503 while the gateway starts or shuts down, and while it can't reach the other nodes.",
  },
  [api.health.name]: { id: "getHealth", description: "For monitoring: `checks` shows which part does not work." },
  [api.openapi.name]: { id: "getOpenApiDocument", description: "It is generated from the routes and contracts that validate requests." },
  [api.docs.name]: { id: "getDocumentation", description: "A page for browsers." },
  [api.docsFile.name]: { id: "getDocumentationFile", description: "A script, a style or the icon of the page." },
  [api.problemPage.name]: { id: "explainProblem", description: "The page that the `type` of a problem leads to, for people." },
};

/** @throws if the operation is missing in the list above */
export function operationOf({ name }: ActionContract): Operation {
  const operation = OPERATIONS[name];
  if (operation === undefined) throw new Error(`openapi/operations.ts has no description of ${name}`);
  return operation;
}
