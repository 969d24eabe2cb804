import * as accounts from "../../../contracts/accounts";
import * as api from "../../../contracts/api";
import type { ActionContract } from "../../../contracts/contract";
import * as oauth from "../../../contracts/oauth";
import * as operations from "../../../contracts/operations";
import * as orders from "../../../contracts/orders";
import * as products from "../../../contracts/products";
import * as users from "../../../contracts/users";
import { EXAMPLE_ID } from "./schemas";

/*
 * Example responses, for the OpenAPI document. They tell one story: Ada sells desk lamps, and three are ordered.
 */

const REGISTERED = "2026-11-26T14:22:19.871Z";
const PUT_ON_SALE = "2026-11-26T14:22:21.366Z";
const PLACED = "2026-11-26T14:22:22.421Z";
const SETTLED = "2026-11-26T14:22:22.463Z";
const CANCELLED = "2026-11-26T14:25:07.310Z";
const NOW = "2026-11-26T15:00:00.000Z";
const CURSOR = "WyJleGFtcGxlIiwxLDFd";

const user = { id: EXAMPLE_ID, email: "ada@example.com", role: "user", created_at: REGISTERED };
const account = { ...user, disabled: false };
const tokens = {
  access_token: "eyJhbGciOiJSUzI1NiIsImtpZCI6ImsxIn0.eyJzdWIiOiIwMTdmMjJlMiJ9.c2lnbmF0dXJl",
  token_type: "bearer",
  expires_in: 900,
  refresh_token: "5LnHxV3eYw0m6Zr9tQ2uBfKcJd8sPa1gNi7oTvXyEhM",
};
const key = { kty: "RSA", n: "sXchDaQebHnPiGvyDOAT4saGEUetSyo9MKLOoWFsueri23bOdgWp4Dy1Wl", e: "AQAB", kid: "k1", alg: "RS256", use: "sig" };

const node = { id: "orders-1", services: ["orders"], version: "0.3.0", uptime: 3_600, cpu: 12.5, memory: 104_857_600 };
const snapshot: operations.Snapshot = {
  at: NOW,
  nodes: [node],
  requests: { per_second: 120.5, refused_per_second: 0, failed_per_second: 0, in_progress: 3, p50_ms: 3, p99_ms: 20 },
  orders: {
    per_second: { PENDING: 12.1, CONFIRMED: 12, REJECTED: 0.1, CANCELLED: 0 },
    newest: { PENDING: 1, CONFIRMED: 969, REJECTED: 10, CANCELLED: 20 },
    outbox: { pending: 1, parked: 0, oldest_seconds: 0.01 },
  },
  busiest: [{ product_id: EXAMPLE_ID, name: "Desk lamp", quantity: 47, sold: 3 }],
};

const product = {
  id: EXAMPLE_ID,
  name: "Desk lamp",
  price: 49.9,
  quantity: 50,
  description: null,
  category: "lamps",
  sku: null,
  seller_id: EXAMPLE_ID,
  created_at: PUT_ON_SALE,
  updated_at: PUT_ON_SALE,
};
const movements = [
  { id: 2, delta: -3, balance: 47, reason: `order ${EXAMPLE_ID} reserved`, order_id: EXAMPLE_ID, created_at: SETTLED },
  { id: 1, delta: 50, balance: 50, reason: "initial stock", order_id: null, created_at: PUT_ON_SALE },
];

const history = [
  { status: "PENDING", at: PLACED },
  { status: "CONFIRMED", at: SETTLED },
  { status: "CANCELLED", at: CANCELLED },
];
/** The order after so many changes of its status. */
const order = (changes: 1 | 2 | 3) => ({
  id: EXAMPLE_ID,
  user_id: EXAMPLE_ID,
  status: history[changes - 1]?.status,
  total_price: 149.7,
  items: [{ product_id: EXAMPLE_ID, name: "Desk lamp", unit_price: 49.9, quantity: 3 }],
  reason: null,
  history: history.slice(0, changes),
  created_at: PLACED,
  updated_at: history[changes - 1]?.at,
});
const stream = history.map((change, i) => `id: ${i + 1}\nevent: status\ndata: ${JSON.stringify({ ...change, reason: null })}\n\n`);

const passed = (...names: string[]) => names.map((name) => ({ name, ok: true }));
const HEALTHY = { status: "ok", checks: passed("gateway", "transporter") };
const WITH_SERVICES = [...HEALTHY.checks, ...passed("users", "users database", "products", "products database", "orders")];

/** By the name of the contract, and the status if there is more than one with a body. */
const EXAMPLES: Readonly<Record<string, unknown>> = {
  [users.register.name]: user,
  [users.token.name]: tokens,
  [`${users.token.name} 400`]: { error: "invalid_grant", error_description: "the e-mail address or the password is wrong" },
  [users.refresh.name]: tokens,
  [users.me.name]: user,
  [users.jwks.name]: { keys: [key] },
  [oauth.authorizationServer.name]: {
    issuer: "https://shop.example.com",
    token_endpoint: "https://shop.example.com/token",
    jwks_uri: "https://shop.example.com/.well-known/jwks.json",
    response_types_supported: [],
    grant_types_supported: ["password", "refresh_token"],
    token_endpoint_auth_methods_supported: ["none"],
    service_documentation: "https://shop.example.com/docs",
  },
  [products.create.name]: product,
  [products.list.name]: { items: [product], next_cursor: CURSOR },
  [products.get.name]: product,
  [products.update.name]: { ...product, price: 44.9, description: "With a dimmer", updated_at: NOW },
  [products.adjust.name]: { ...product, quantity: 60, updated_at: NOW },
  [products.ledger.name]: { items: movements, next_cursor: null },
  [orders.create.name]: order(1),
  [orders.list.name]: { items: [order(2)], next_cursor: CURSOR },
  [orders.get.name]: order(2),
  [operations.operations.name]: `retry: 2000\n\nevent: snapshot\ndata: ${JSON.stringify(snapshot)}\n\n`,
  [api.orderEvents.name]: `retry: 2000\n\n${stream.join("")}`,
  [orders.cancel.name]: order(3),
  [accounts.find.name]: account,
  [accounts.update.name]: account,
  [accounts.auditLog.name]: {
    items: [
      {
        id: 7,
        at: NOW,
        actor: EXAMPLE_ID,
        action: "user.disabled",
        subject: EXAMPLE_ID,
        address: "203.0.113.7",
        request_id: "4d52694d-d4b2-4054-83c3-b8f5e731209c",
      },
    ],
    next_cursor: CURSOR,
  },
  [orders.outbox.name]: {
    items: [
      {
        id: 1,
        order_id: EXAMPLE_ID,
        event: "order.created",
        state: "PARKED",
        attempts: 10,
        next_attempt_at: NOW,
        last_error: "lines[0].quantity must be >= 1",
        created_at: PLACED,
      },
    ],
    next_cursor: null,
  },
  [orders.audit.name]: {
    ok: true,
    checked_at: NOW,
    in_flight: 2,
    oldest_in_flight: 0.4,
    parked: 0,
    checks: [{ name: "the total is the sum of its lines", ok: true, violations: 0, sample: [] }],
  },
  [orders.repair.name]: {
    applied: false,
    repairs: [{ order_id: EXAMPLE_ID, what: "CONFIRMED, its reservation none", action: "order.created" }],
    decisions: [],
    undecided: 0,
    more: false,
  },
  [api.nodes.name]: { items: [node] },
  [api.live.name]: { status: "ok", checks: [] },
  [api.ready.name]: HEALTHY,
  [`${api.ready.name} 503`]: { status: "unavailable", checks: [{ name: "gateway", ok: false, detail: "starting or stopping" }] },
  [api.health.name]: { status: "ok", checks: [...WITH_SERVICES, { name: "orders database", ok: true }] },
  [`${api.health.name} 503`]: {
    status: "unavailable",
    checks: [...WITH_SERVICES, { name: "orders database", ok: false, detail: "unknown" }],
  },
  [api.openapi.name]: { openapi: "3.1.0" },
};

/** The example of a response, as a field of its media type; none for pages and files, which are for browsers. */
export function exampleOf({ name }: ActionContract, status: number): { example?: unknown } {
  const example = EXAMPLES[`${name} ${status}`] ?? EXAMPLES[name];
  return example === undefined ? {} : { example };
}
