import { EventEmitter } from "node:events";
import { ServerResponse } from "node:http";
import { connect } from "node:net";
import jwt from "jsonwebtoken";
import type { Middleware } from "moleculer";
import { Client as Postgres } from "pg";
import type { FairSlots } from "../../mixins/fair-queue";
import type { Connections } from "../../services/api/connections/connections";
import type { Streams } from "../../services/api/streams/streams";
import { until } from "../../testkit/until";
import { Client } from "../../testkit/client";
import { EventStream } from "./event-stream";
import { ADMIN } from "../../testkit/admin";
import { urlOf, startShop, type Shop, type ShopOptions } from "../../testkit/shop";

/** Names of the events that are currently lost. */
const lost = new Set<string>();
/** Logins wait until it resolves. */
let gate = Promise.resolve();
const losing: Middleware = {
  name: "Losing",
  localAction: (next, action) =>
    async function (ctx) {
      if (action.name === "users.token") await gate;
      return next.call(this, ctx) as unknown;
    },
  localEvent: (next, event) => (ctx) => (lost.has(event.name ?? "") ? Promise.resolve() : next(ctx)),
};
const NEVER = 3_600_000;

let shop: Shop, buyer: Client;
let streams: EventStream[] = [];

async function open(options: ShopOptions): Promise<void> {
  shop = await startShop({ ...options, broker: { middlewares: [losing] } });
  buyer = shop.client();
  await buyer.signUp();
}
async function follow(id: string, lastEventId?: string, who = buyer): Promise<EventStream> {
  const stream = await EventStream.open(who, id, lastEventId);
  streams.push(stream);
  return stream;
}
/** Places an order that stays PENDING while `order.created` is lost. */
async function order(quantity = 1): Promise<string> {
  const { body } = await buyer.order(await buyer.createProduct({ quantity: 10 }), quantity);
  return String(body["id"]);
}
async function confirmed(): Promise<string> {
  const id = await order();
  expect(await buyer.decided(id)).toMatchObject({ status: "CONFIRMED" });
  return id;
}
const cancel = async (id: string): Promise<void> => expect((await buyer.post(`/orders/${id}/cancel`)).status).toBe(200);

afterEach(async () => {
  lost.clear();
  await Promise.all(streams.map((stream) => stream.close()));
  streams = [];
});

describe("a stream of an order's events, updated only by order.changed", () => {
  beforeAll(() => open({ limits: { streams: { readEveryMs: NEVER } } }));
  afterAll(() => shop.stop());

  it("begins with the history, continues with CONFIRMED and CANCELLED as they happen, and then ends", async () => {
    lost.add("order.created");
    const id = await order();
    const [stream, upper] = [await follow(id), await follow(id.toUpperCase())];
    await stream.has("PENDING");
    const headers = ["content-type", "cache-control", "x-accel-buffering", "x-content-type-options"];
    expect(headers.map((name) => stream.response.headers.get(name))).toEqual(["text/event-stream", "no-store", "no", "nosniff"]);
    expect(stream.response.headers.get("x-request-id")).toMatch(/^[0-9a-f-]{36}$/);
    lost.clear();
    await stream.has("PENDING", "CONFIRMED");
    expect(stream.state).toBe("open");
    await cancel(id);
    await stream.end();
    const { body } = await buyer.get(`/orders/${id}`);
    const events = body["history"].map((entry: object, i: number) => {
      return `id: ${i + 1}\nevent: status\ndata: ${JSON.stringify({ ...entry, reason: null })}\n\n`;
    });
    expect(events).toHaveLength(3);
    await upper.end();
    for (const { text } of [stream, upper]) expect(text).toBe(`retry: 2000\n\n${events.join("")}`);
  });

  it("of an order that is REJECTED contains the reason, and ends", async () => {
    lost.add("order.created");
    const product = await buyer.createProduct({ quantity: 5 });
    const id = String((await buyer.order(product, 5)).body["id"]);
    const stream = await follow(id);
    await stream.has("PENDING");
    await buyer.post(`/products/${product}/stock`, { delta: -1 });
    lost.clear();
    await stream.end();
    expect(stream.events.map(({ id, data }) => [id, data.status, data.reason])).toEqual([
      ["1", "PENDING", null],
      ["2", "REJECTED", `not enough stock: product ${product}: 5 wanted, 4 left`],
    ]);
  });

  it("resumes after the last seen event, without duplicates; after the final one there is nothing to resume", async () => {
    const id = await confirmed();
    const [first, second, ahead] = [await follow(id, "1"), await follow(id, "2"), await follow(id, "99")];
    await first.has("CONFIRMED");
    await cancel(id);
    await Promise.all([first.end(), second.end(), ahead.end()]);
    expect([first, second, ahead].map(({ events }) => events.map((event) => `${event.id} ${event.data.status}`))).toEqual([
      ["2 CONFIRMED", "3 CANCELLED"],
      ["3 CANCELLED"],
      ["3 CANCELLED"],
    ]);
    const late = await follow(id, "2");
    await late.end();
    expect(late.statuses).toEqual(["CANCELLED"]);
    const again = await follow(id, "3");
    await again.end();
    expect([again.status, again.text]).toEqual([204, ""]);
  });

  it("is open to an admin, too, but not without a token; HEAD opens none", async () => {
    const id = await confirmed();
    const admin = await shop.client().login(ADMIN.email, ADMIN.password);
    await (await follow(id, undefined, admin)).has("PENDING", "CONFIRMED");
    const nobody = await follow(id, undefined, shop.client());
    await nobody.end();
    expect([nobody.status, JSON.parse(nobody.text).code]).toEqual([401, "UNAUTHENTICATED"]);
    const path = `/orders/${id}/events`;
    for (let i = 0; i < 11; i++) expect((await buyer.request("HEAD", path)).headers.get("content-type")).toBe("text/event-stream");
    expect((await buyer.request("OPTIONS", path)).headers.get("allow")).toBe("GET, HEAD, OPTIONS");
  });

  it("a user's eleventh stream → 429, while others still get one; a client that disconnects frees its place", async () => {
    const id = await confirmed();
    const open = await Promise.all(Array.from({ length: 10 }, () => follow(id)));
    await Promise.all(open.map((stream) => stream.has("PENDING", "CONFIRMED")));
    const eleventh = await follow(id);
    await eleventh.end();
    expect([eleventh.status, eleventh.response.headers.get("retry-after")]).toEqual([429, "2"]);
    expect(JSON.parse(eleventh.text)).toMatchObject({ code: "TOO_MANY_REQUESTS", title: "Too Many Requests", status: 429 });
    const admin = await shop.client().login(ADMIN.email, ADMIN.password);
    expect((await follow(id, undefined, admin)).status).toBe(200);
    await open[0]!.close();
    await until("there is a free place", async () => (await follow(id)).status === 200);
  });

  it("one that waits behind another response, and whose client disconnects before that is sent, frees its place", async () => {
    const id = await confirmed();
    let letGo = (): void => undefined;
    gate = new Promise((resolve) => (letGo = resolve));
    const { hostname, port } = new URL(shop.url);
    const socket = connect(Number(port), hostname);
    const login = JSON.stringify({ email: "a@b.co", password: "wrong" });
    socket.write(
      `POST /token HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: ${login.length}\r\n\r\n${login}` +
        `GET /orders/${id}/events HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer ${buyer.token!}\r\n\r\n`,
    );
    const gateway = shop.node("api").getLocalService("api") as unknown as { streams: Streams; connections: Connections };
    const open = () => (gateway.streams as unknown as { all: Set<unknown> }).all.size;
    try {
      await until("the stream is open", () => open() === 1);
      // Node 20 does not emit "close" for a response that waits behind another one.
      jest.spyOn(ServerResponse.prototype, "emit").mockImplementation(function (
        this: ServerResponse,
        event: string | symbol,
        ...args: unknown[]
      ) {
        return event !== "close" && EventEmitter.prototype.emit.call(this, event, ...args);
      });
      socket.destroy();
      await until("its connection is closed", () => gateway.connections.areIdle);
      await until("its place is free", () => open() === 0, 5_000);
    } finally {
      jest.restoreAllMocks();
      letGo();
      socket.destroy();
    }
  });
});

describe("a stream of an order's events, if order.changed is always lost", () => {
  let key: { kid: string; private_key: string };
  beforeAll(async () => {
    await open({ limits: { streams: { readEveryMs: 250 } } });
    const database = new Postgres(shop.databases.users.url);
    await database.connect();
    key = (await database.query<typeof key>("select kid, private_key from signing_keys").finally(() => database.end())).rows[0]!;
  });
  beforeEach(() => lost.add("order.changed"));
  afterAll(() => shop.stop());

  it("still sends every change", async () => {
    lost.add("order.created");
    const id = await order();
    const stream = await follow(id);
    await stream.has("PENDING");
    lost.delete("order.created");
    await stream.has("PENDING", "CONFIRMED");
    await cancel(id);
    await stream.end();
    expect(stream.statuses).toEqual(["PENDING", "CONFIRMED", "CANCELLED"]);
  });

  it("ends when the token has expired", async () => {
    const id = await confirmed();
    const claims = jwt.decode(buyer.token!) as jwt.JwtPayload;
    const leeway = 5; // seconds by which clocks may differ
    const exp = Math.floor(Date.now() / 1000) + 2 - leeway;
    const guest = new Client(shop.url);
    guest.token = jwt.sign({ ...claims, exp }, key.private_key, { algorithm: "RS256", keyid: key.kid });
    const [stream, other] = [await follow(id, undefined, guest), await follow(id)];
    await stream.has("PENDING", "CONFIRMED");
    await stream.end();
    expect(other.state).toBe("open");
    expect((await guest.get(`/orders/${id}`)).status).toBe(401);
  });

  it("is the last response of its connection: further requests close the connection, and no other client waits", async () => {
    const [id, product] = [await confirmed(), await buyer.createProduct()];
    const { hostname, port } = new URL(shop.url);
    const head = `HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer ${buyer.token!}\r\n\r\n`;
    const socket = connect(Number(port), hostname);
    const gateway = shop.node("api").getLocalService("api") as unknown as { admission: FairSlots; connections: Connections };
    let text = "";
    let areOthersMade = false; // observed continuously, since the connection is closed within a second
    socket.on("data", (chunk) => {
      text += chunk.toString();
      areOthersMade ||= text.includes("CONFIRMED") && !gateway.connections.areIdle;
    });
    socket.write(
      `GET /orders/${id}/events ${head}${`GET /products/${product} HTTP/1.1\r\nHost: a\r\n\r\n`.repeat(600)}${`GET /me ${head}`.repeat(20)}`,
    );
    await until("the stream is open, and some of the other responses are ready", () => areOthersMade);
    await until("the requests hold no place", () => gateway.admission.inFlight === 0, 5_000);
    expect((await shop.client().get(`/products/${product}`)).status).toBe(200);
    await until("the connection is closed", () => socket.destroyed);
    await until("the connections are idle", () => gateway.connections.areIdle);
    expect(text).toContain("Connection: close");
    expect(text.split("HTTP/1.1 ")).toHaveLength(2);
  });
});

describe("of many streams", () => {
  beforeAll(() => open({ limits: { streams: { readEveryMs: NEVER, ofOneUser: 600, ofAll: 4 * 520 } } }));
  afterAll(() => shop.stop());

  it("none takes a place from requests, and an address with a quarter of all streams is refused another one", async () => {
    const id = await confirmed();
    const all: EventStream[] = [];
    while (all.length < 520) all.push(...(await Promise.all(Array.from({ length: 104 }, () => follow(id)))));
    expect(new Set(all.map(({ status }) => status))).toEqual(new Set([200]));
    const surplus = await follow(id);
    await surplus.end();
    expect([surplus.status, surplus.response.headers.get("retry-after")]).toEqual([429, "2"]);
    expect(JSON.parse(surplus.text)).toMatchObject({ code: "TOO_MANY_REQUESTS" });
    expect((await buyer.get(`/orders/${id}`)).status).toBe(200);
  });
});

describe("with two gateways", () => {
  let there: Client;
  beforeAll(async () => {
    await open({ nodes: [["api"], ["api"], ["users"], ["products"], ["orders"]], limits: { streams: { readEveryMs: NEVER } } });
    there = new Client(urlOf(shop.nodes[1]!));
    there.token = buyer.token;
  });
  afterAll(() => shop.stop());

  it("a change through one is sent by the other", async () => {
    const id = await confirmed();
    const stream = await follow(id, undefined, there);
    await stream.has("PENDING", "CONFIRMED");
    await cancel(id);
    await stream.end();
    expect(stream.statuses).toEqual(["PENDING", "CONFIRMED", "CANCELLED"]);
  });

  it("one that stops ends its streams at once, and its client resumes at the other", async () => {
    const id = await confirmed();
    const stream = await follow(id, undefined, there);
    await stream.has("PENDING", "CONFIRMED");
    const since = performance.now();
    await shop.nodes[1]!.stop();
    expect(performance.now() - since).toBeLessThan(2_000); // a drain may take 10 s
    await stream.end();
    const resumed = await follow(id, stream.events.at(-1)!.id);
    await cancel(id);
    await resumed.end();
    expect(resumed.statuses).toEqual(["CANCELLED"]);
  });
});
