import { randomUUID } from "node:crypto";
import { Agent, fetch as fetchFrom } from "undici";
import { digestOf } from "../../contracts/lines";
import { SMALL_ORDER_LINES, type Status } from "../../contracts/orders";
import { ADMIN } from "../../testkit/admin";
import { messageOf } from "../../testkit/error-message";
import { followOrder, type Open } from "../../testkit/history/readers";
import { insertOrders } from "../../testkit/load/insert-orders";
import { PLENTY, type Load } from "../../testkit/load/load";
import type { SystemNode } from "../../testkit/system/node";
import type { Shop } from "../../testkit/system/system";
import { eventually } from "../../testkit/until";
import type { Consoles } from "./consoles";

/** Enough for an order to settle, including a delay of the relay and one retry. */
const SETTLED_MS = 20_000;
/** Separate from the load's agents, since a stream closes its connection when it ends. */
const FOLLOWERS = new Agent({ connect: { localAddress: "127.0.0.6" } });

interface User {
  id: string;
  email: string;
  password: string;
  token: string;
}

interface Request {
  body?: object;
  token?: string;
  headers?: Record<string, string>;
}

/** Does everything once that clients, admins and consoles can do, so that every action and every event is used. */
export class Tour {
  readonly violations: string[] = [];
  private admin = "";
  /** More products than a small order has lines, since large orders are processed separately. */
  private products: string[] = [];

  constructor(
    private readonly load: Load,
    private readonly shop: Shop,
    private readonly consoles: Consoles,
  ) {}

  async setUp(): Promise<void> {
    this.admin = (await this.load.tokensOf(ADMIN)).access_token;
    for (let n = 0; n <= SMALL_ORDER_LINES; n++) this.products.push(await this.load.createProduct(PLENTY));
  }

  /** All requests over HTTP. Any unexpected response is a violation. */
  async asClients(): Promise<void> {
    await this.recordViolations(async () => {
      const user = await this.registerUser();
      await Promise.all([
        this.editCatalogue(user),
        this.placeOrder(user, 1),
        this.placeOrder(user, SMALL_ORDER_LINES + 1),
        this.replayParked(),
        this.auditAndRepair(),
      ]);
      await this.endSessions(user);
    });
  }

  /** Calls that only a console can make. @param node the console's node */
  async asConsole(node: SystemNode): Promise<void> {
    await this.recordViolations(async () => {
      const { id, email } = await this.registerUser();
      const call = (action: string, params: object, meta?: Record<string, unknown>) => this.consoles.call(node, action, params, meta);
      const [product_id] = this.products;
      const created = await call("orders.create", { items: [{ product_id, quantity: 1 }] }, { user: { id, role: "user" } });
      await call("orders.get", { id: field(field(created, "order"), "id") });
      await call("products.get", { id: product_id });
      await call("products.list", { limit: 1 });
      await call("users.disable", { id });
      await call("users.enable", { id });
      await call("users.setRole", { id, role: "user" });
      await call("users.find", { email });
      await call("users.rotateKeys", {});
    });
  }

  /** Calls of what the previous release lacks. @param node the console's node, which hosts none of these services, once all nodes are new */
  async asNewConsole(node: SystemNode): Promise<void> {
    await this.recordViolations(async () => {
      for (const action of ["api.activity", "orders.activity", "products.activity"]) await this.consoles.call(node, action, {});
    });
  }

  private async recordViolations(work: () => Promise<void>): Promise<void> {
    await work().catch((error: unknown) => this.violations.push(messageOf(error)));
  }

  private async request(expected: number, method: string, path: string, { body, token, headers }: Request = {}): Promise<unknown> {
    const response = await this.load.request(method, path, body, token, undefined, headers);
    if (response.status !== expected)
      throw new Error(`${method} ${path} got ${response.status || "no response"} instead of ${expected} ${response.body}`);
    return response.body === "" ? undefined : JSON.parse(response.body);
  }

  /** Registers a user, logs in and refreshes the tokens. */
  private async registerUser(): Promise<User> {
    const credentials = { email: `${randomUUID()}@shop.test`, password: "correct horse battery" };
    const id = text(await this.request(201, "POST", "/register", { body: credentials }), "id");
    const refresh_token = text(await this.request(200, "POST", "/token", { body: credentials }), "refresh_token");
    const token = text(await this.request(200, "POST", "/token/refresh", { body: { refresh_token } }), "access_token");
    await this.request(200, "GET", "/me", { token });
    await this.request(200, "GET", "/.well-known/jwks.json");
    return { id, ...credentials, token };
  }

  /** The last step with an account, since it ends the account's sessions. */
  private async endSessions({ id, email, password, token }: User): Promise<void> {
    const next = "battery staple horse";
    await this.request(204, "PUT", "/me/password", { token, body: { current_password: password, new_password: next } });
    const granted = await this.request(200, "POST", "/token", { body: { email, password: next } });
    await this.request(204, "POST", "/logout", { body: { refresh_token: text(granted, "refresh_token") } });
    const admin = { token: this.admin };
    await this.request(200, "GET", `/admin/users?email=${encodeURIComponent(email)}`, admin);
    for (const disabled of [true, false]) await this.request(200, "PATCH", `/admin/users/${id}`, { ...admin, body: { disabled } });
    await this.request(200, "GET", `/admin/audit-log?subject=${id}`, admin);
  }

  private async editCatalogue({ token }: User): Promise<void> {
    const body = { name: "Desk lamp", price: 49.9, quantity: 10, category: "lamps" };
    const headers = { "idempotency-key": randomUUID() }; // which products nodes of version 0.2.0 ignore
    const path = `/products/${text(await this.request(201, "POST", "/products", { token, body, headers }), "id")}`;
    await this.request(200, "GET", path);
    await this.request(200, "GET", "/products?limit=5");
    await this.request(200, "GET", "/products?q=lamp&limit=5");
    await this.request(200, "PATCH", path, { token, body: { price: 44.9 } });
    await this.request(200, "PATCH", path, { token: this.admin, body: { price: 39.9, description: "With a dimmer" } }); // the users service logs it
    await this.request(200, "POST", `${path}/stock`, { token, body: { delta: -3, reason: "broken" } });
    await this.request(200, "GET", `${path}/stock`, { token });
    await this.request(204, "DELETE", path, { token });
  }

  /** Places an order and follows it until it is confirmed and then cancelled by an admin. */
  private async placeOrder({ token }: User, lines: number): Promise<void> {
    const items = this.products.slice(0, lines).map((product_id) => ({ product_id, quantity: 1 }));
    const order = { token, body: { items }, headers: { "idempotency-key": randomUUID() } };
    const id = text(await this.request(201, "POST", "/orders", order), "id");
    const path = `/orders/${id}`;
    const followed = this.follow(id, token, ["CONFIRMED", "CANCELLED"], () =>
      this.request(200, "POST", `${path}/cancel`, { token: this.admin }),
    );
    followed.catch(() => undefined); // awaited below
    const again = text(await this.request(201, "POST", "/orders", order), "id");
    if (again !== id) throw new Error(`a retried order created another one: ${id}, ${again}`);
    await this.request(200, "GET", path, { token });
    await this.request(200, "GET", "/orders?limit=5", { token });
    await followed;
  }

  /** A stopping gateway ends its streams, and their clients reconnect; but no connection may be cut. */
  private async follow(
    id: string,
    token: string,
    [first, last]: readonly [Status, Status],
    atFirst: () => Promise<unknown>,
  ): Promise<void> {
    const deadline = Date.now() + SETTLED_MS;
    const open: Open = (path, headers, signal) =>
      fetchFrom(this.shop.url + path, { dispatcher: FOLLOWERS, headers: { ...headers, Authorization: `Bearer ${token}` }, signal });
    let acted: Promise<unknown> | undefined;
    while (Date.now() < deadline) {
      const left = new AbortController();
      const signal = AbortSignal.any([left.signal, AbortSignal.timeout(SETTLED_MS)]);
      const { status, events, closed } = await followOrder(open, token, id, signal, (seen) => {
        if (seen === first) acted ??= atFirst();
        acted?.catch(() => left.abort()); // no event will follow; the error is thrown below
        if (seen === last) left.abort();
      });
      if (left.signal.aborted || events.some((event) => event.status === last)) {
        await acted;
        return;
      }
      if (status !== 200 || closed === "cut")
        throw new Error(`the stream of order ${id} got ${status ?? "no response"} and is ${closed ?? "open"}`);
    }
    throw new Error(`the stream of order ${id} never showed ${last}`);
  }

  /** An outbox row whose event breaks its contract is refused and parked; once repaired and replayed, it is settled. */
  private async replayParked(): Promise<void> {
    const [product_id = ""] = this.products;
    const [row] = await insertOrders(this.shop, 1, product_id, { lines: "nonsense" });
    const becomes = (state: string): Promise<void> =>
      eventually(`an outbox row is ${state}`, async () => (await this.stateOf(row?.id)) === state, SETTLED_MS);
    await becomes("PARKED");
    await this.request(200, "GET", "/admin/outbox?state=parked", { token: this.admin });
    const payload = { lines: [{ product_id, quantity: 1 }] };
    await this.shop.sql("orders", "update outbox set payload = $2 where id = $1", [row?.id, payload]);
    await this.request(202, "POST", `/admin/outbox/${row?.id ?? ""}/replay`, { token: this.admin });
    await becomes("SETTLED");
  }

  private async stateOf(id: string | undefined): Promise<string | undefined> {
    return (await this.shop.sql<{ state: string }>("orders", "select state from outbox where id = $1", [id]))[0]?.state;
  }

  /** The audit finds nothing; then an order that is unknown to products is repaired. */
  private async auditAndRepair(): Promise<void> {
    const admin = { token: this.admin };
    await this.request(200, "GET", "/health");
    await this.request(200, "GET", "/admin/nodes", admin);
    const report = await this.request(200, "GET", "/admin/consistency", admin);
    if (field(report, "ok") !== true) throw new Error(`the audit is not clean: ${JSON.stringify(report)}`);
    const [product_id = ""] = this.products;
    const [order] = await this.shop.sql<{ id: string }>(
      "orders",
      `with o as (
         insert into orders (user_id, idempotency_key, request_hash, lines_digest, status, reason, total_cents)
         values (gen_random_uuid(), gen_random_uuid()::text, 'upgrade', $2, 'REJECTED', 'no stock', 100) returning id
       ), l as (insert into order_lines select id, $1, 'Lamp', 100, 1 from o),
       h as (insert into order_history (order_id, status) select id, unnest(array['PENDING', 'REJECTED']) from o)
       select id from o`,
      [product_id, digestOf([{ product_id, quantity: 1 }])],
    );
    const repaired = await this.request(200, "POST", "/admin/repair", { ...admin, body: { apply: true } });
    if (order === undefined || !JSON.stringify(repaired).includes(order.id))
      throw new Error(`nothing was repaired: ${JSON.stringify(repaired)}`);
  }
}

const field = (body: unknown, name: string): unknown => (typeof body === "object" && body !== null ? Reflect.get(body, name) : undefined);

function text(body: unknown, name: string): string {
  const value = field(body, name);
  if (typeof value !== "string") throw new Error(`a response lacks ${name}: ${JSON.stringify(body)}`);
  return value;
}
