import type { Middleware } from "moleculer";
import { connect, type Socket } from "node:net";
import { until } from "../../testkit/until";
import type { Client } from "../../testkit/client";
import { testId } from "../../testkit/ids";
import { startShop, type Shop } from "../../testkit/shop";
import type { GatewayLimits } from "../../services/api/api.service";
import type { Connections } from "../../services/api/connections/connections";
import { threadCpu } from "./expensive-requests";

/*
 * Clients that send requests and don't read the responses, and the gateway's resources that they may hold.
 */

const KIB = 1_024;
let shop: Shop;
let seller: Client;
const sockets: Socket[] = [];

async function open(limits: GatewayLimits["connections"] = {}, ...middlewares: Middleware[]): Promise<void> {
  shop = await startShop({ limits: { connections: limits }, broker: { middlewares } });
  seller = shop.client();
  await seller.signUp();
}
afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.destroy();
  await shop.stop();
});

/** Opens a connection from an address; it reads only after `read` is called. */
async function dial(localAddress = "127.0.0.2") {
  const { hostname, port } = new URL(shop.url);
  const socket = connect({ host: hostname, port: Number(port), localAddress });
  sockets.push(socket);
  const received = { text: "", isClosed: false };
  socket.on("error", () => undefined); // the gateway closed the connection; "close" follows
  socket.on("close", () => (received.isClosed = true));
  socket.pause();
  await new Promise((resolve) => socket.once("connect", resolve));
  const read = (): void => {
    socket.on("data", (chunk) => (received.text += chunk.toString()));
    socket.resume();
  };
  return { socket, received, read };
}

interface Held {
  unsentBytes: number;
  bodies: number;
  parsed: number;
  all: Map<Socket, { started: { readyAt: number | undefined }[]; waiting: unknown[]; unsentBytes: number }>;
}
const held = (): Held =>
  (shop.node("api").getLocalService("api") as unknown as { connections: Connections }).connections as unknown as Held;
const heldBy = (n: number) => [...held().all.values()].filter(({ started }) => started.length > 0)[n];

/** The number of connections from `dial`'s address. */
const ofDialled = (): number => [...held().all.keys()].filter(({ remoteAddress }) => remoteAddress?.endsWith("127.0.0.2")).length;

const get = (path: string): string => `GET ${path} HTTP/1.1\r\nHost: a\r\n\r\n`;
const bodies = (text: string): number => text.split("HTTP/1.1 200").length - 1;

/** Creates enough products for pages of 256 KiB. */
async function stock(): Promise<void> {
  await Promise.all(Array.from({ length: 17 }, () => seller.createProduct({ description: "灯".repeat(4_900) })));
}

describe("requests that are pipelined on one connection", () => {
  it("are started eight at a time, and all get their responses in order", async () => {
    let letGo = (): void => undefined;
    const gate = new Promise<void>((resolve) => (letGo = resolve));
    await open(
      {},
      {
        name: "Gated",
        localAction: (next, action) =>
          async function (ctx) {
            if (action.name === "products.getMany") await gate;
            return next.call(this, ctx) as unknown;
          },
      },
    );
    const id = await seller.createProduct();
    const { socket, received, read } = await dial();
    socket.write(`${get(`/products/${id}`).repeat(99)}${get(`/products/${testId(999_999)}`)}`);
    await until("others wait behind the started ones", () => (heldBy(0)?.waiting.length ?? 0) > 0);
    const [started, waiting] = [heldBy(0)!.started.length, heldBy(0)!.waiting.length];
    letGo();
    expect(started).toBe(8);
    expect(waiting).toBeLessThanOrEqual(16); // the rest isn't even parsed
    read();
    await until("all have their responses", () => bodies(received.text) === 99 && received.text.includes("HTTP/1.1 404"));
    expect(received.text.lastIndexOf("HTTP/1.1 200")).toBeLessThan(received.text.indexOf("HTTP/1.1 404"));
    expect(received.isClosed).toBe(false);
  });

  it("are slowed down, however many there are, but not cut off: 5,000 in several writes get 5,000 responses", async () => {
    await open();
    const { socket, received, read } = await dial();
    read();
    for (let n = 0; n < 5; n++) socket.write(get("/nothing").repeat(1_000));
    let most = 0;
    await until(
      "all have their responses",
      () => {
        most = Math.max(most, heldBy(0)?.waiting.length ?? 0);
        return received.isClosed || received.text.split("HTTP/1.1 404").length === 5_001;
      },
      60_000,
    );
    expect(received.isClosed).toBe(false);
    expect(most).toBeLessThanOrEqual(16);
    expect(held()).toMatchObject({ parsed: 0 });
  });

  it("with bodies lead to a closed connection once 32 wait unstarted", async () => {
    await open();
    const counted = jest.spyOn(held() as unknown as Connections, "open");
    const { socket, received, read } = await dial();
    read();
    socket.write("POST /nothing HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx".repeat(1_000));
    await until("the connection is closed", () => received.isClosed);
    await until("its resources are released", () => held().parsed === 0);
    expect(counted.mock.calls.length).toBeLessThan(500);
  });

  it("are no longer parsed once their connection is closed", async () => {
    await open({ parsed: 40 });
    const counted = jest.spyOn(held() as unknown as Connections, "open");
    const { socket, received, read } = await dial();
    read();
    socket.write(get("/nothing").repeat(1_000));
    await until("the connection is closed", () => received.isClosed);
    expect(counted.mock.calls.length).toBeLessThan(500);
  });

  it("wait unstarted if their responses are not read: a connection holds at most 1 MiB beyond the response being sent", async () => {
    await open();
    await stock();
    const { socket, received, read } = await dial();
    socket.write(get("/products?limit=100").repeat(80));
    // The operating system buffers some megabytes of unread data; then the gateway stops.
    await until("all started responses are ready but not sent", () => {
      const { waiting, started, unsentBytes } = heldBy(0) ?? { waiting: [], started: [], unsentBytes: 0 };
      return waiting.length > 0 && unsentBytes > 512 * KIB && started.every(({ readyAt }) => readyAt !== undefined);
    });
    const connection = heldBy(0)!;
    expect(connection.unsentBytes).toBeGreaterThan(0);
    expect(connection.unsentBytes).toBeLessThanOrEqual((1_024 + 260) * KIB);
    read();
    await until("all have their responses", () => bodies(received.text) === 80, 60_000);
  });

  it("lead to a closed connection once their address holds a quarter of the places for unstarted requests", async () => {
    await open({ parsed: 100 });
    const [first, second, third] = [await dial(), await dial(), await dial()];
    first.socket.write(get("/nothing").repeat(90));
    first.read();
    await until("the first requests have their responses", () => first.received.text.split("HTTP/1.1 404").length === 91);
    for (const { socket, read } of [second, third]) {
      read();
      socket.write(get("/products").repeat(200));
    }
    await until("one of two is closed", () => second.received.isClosed || third.received.isClosed);
    await until("its resources are released", () => held().parsed === 0);
    expect(first.received.isClosed).toBe(false);
  });

  it("are refused with 429 once their address holds a quarter of the space for unsent responses, and others are served", async () => {
    await open({ unsentBytes: 8 * KIB * KIB });
    await stock();
    const greedy = await Promise.all(Array.from({ length: 8 }, dial));
    let refusal = "";
    await until("a late request is refused", async () => {
      // Again and again, since those that are refused while the first ones are in progress get small responses.
      for (const { socket } of greedy) socket.write(get("/products?limit=100").repeat(8));
      if (held().unsentBytes < 1.75 * KIB * KIB) return false;
      const { socket, read, received } = await dial();
      read();
      socket.write(get("/products"));
      await until("it has its response", () => received.text.includes("\r\n\r\n"));
      socket.destroy();
      refusal = received.text;
      return refusal.startsWith("HTTP/1.1 429");
    });
    expect(refusal).toMatch(/Retry-After: 1/);
    expect((await shop.client().get("/products")).status).toBe(200);
  });
});

describe("a response", () => {
  it("that is not read in time leads to a closed connection", async () => {
    await open({ sendTimeoutMs: 300, sendBytesPerSecond: KIB * KIB });
    await stock();
    const { socket, received } = await dial();
    socket.write(get("/products?limit=100").repeat(100));
    await until("there is unsent data", () => (heldBy(0)?.unsentBytes ?? 0) > 0);
    await until("its connection is closed", () => heldBy(0) === undefined, 15_000);
    socket.resume(); // only now does the client's end notice
    await until("the client is disconnected", () => received.isClosed);
  });

  it("is never mixed with an error for invalid HTTP, which closes the connection", async () => {
    await open();
    const id = await seller.createProduct();
    const order = (await seller.order(id, 1)).body["id"] as string;
    await seller.decided(order);
    const { socket, received, read } = await dial();
    read();
    socket.write(`GET /orders/${order}/events HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer ${seller.token ?? ""}\r\n\r\n`);
    await until("the stream is open", () => received.text.includes("CONFIRMED"));
    socket.write("nonsense\r\n\r\n");
    await until("the connection is closed", () => received.isClosed);
    expect(received.text.split("HTTP/1.1")).toHaveLength(2);
  });
});

describe("connections", () => {
  it("of one address beyond a quarter of all: an idle one is closed instead, or the new one if none is idle", async () => {
    await open({ sockets: 16, idleMs: 0 });
    const idle = await dial();
    const busy = await Promise.all([1, 2, 3].map(() => dial()));
    const body = "POST /token HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n{";
    for (const { socket } of busy) socket.write(body);
    await until("three are busy", () => [...held().all.values()].filter(({ started }) => started.length > 0).length === 3);
    const fifth = await dial();
    fifth.socket.write(body);
    idle.socket.resume();
    await until("the idle one is closed", () => idle.received.isClosed);
    await until("four are busy", () => [...held().all.values()].filter(({ started }) => started.length > 0).length === 4);
    const sixth = await dial();
    sixth.socket.resume();
    await until("the sixth is closed", () => sixth.received.isClosed);
    expect((await shop.client().get("/products")).status).toBe(200);
  });

  it("of one address beyond a quarter of all: the new one is closed if none has been idle for a while", async () => {
    await open({ sockets: 16, idleMs: 60_000 });
    const idle = await Promise.all([1, 2, 3, 4].map(() => dial()));
    await until("all four are accepted", () => ofDialled() === 4); // in any order, as they arrive at several listening sockets
    const fifth = await dial();
    fifth.socket.resume();
    await until("the fifth is closed", () => fifth.received.isClosed);
    for (const { socket, read } of idle) {
      read();
      socket.write(get("/products"));
    }
    await until("the others are served", () => idle.every(({ received }) => received.text.startsWith("HTTP/1.1 200")));
  });

  it("from a trusted proxy carry many clients, and are not limited to a share", async () => {
    shop = await startShop({ env: { TRUST_PROXY: "127.0.0.2" }, limits: { connections: { sockets: 16 } } });
    const all = await Promise.all(Array.from({ length: 8 }, () => dial("127.0.0.2")));
    for (const { socket, read } of all) {
      read();
      socket.write(get("/products"));
    }
    await until("all are served", () => all.every(({ received }) => received.text.startsWith("HTTP/1.1 200")));
  });

  it("are kept for KEEP_ALIVE_TIMEOUT after a response", async () => {
    shop = await startShop({ env: { KEEP_ALIVE_TIMEOUT: "1" } });
    const { socket, received, read } = await dial();
    read();
    const since = performance.now();
    socket.write(get("/products"));
    await until("the connection is closed", () => received.isClosed, 10_000);
    expect(received.text).toContain("Keep-Alive: timeout=1");
    expect(performance.now() - since).toBeGreaterThan(900);
  });
});

describe("a body", () => {
  it("of a protected route is not parsed without a valid token", async () => {
    await open();
    for (const authorization of ["", "Authorization: Bearer a.b.c\r\n"]) {
      const { socket, received, read } = await dial();
      read();
      socket.write(
        `POST /orders HTTP/1.1\r\nHost: a\r\n${authorization}Content-Type: application/json\r\nContent-Length: 100000\r\nExpect: 100-continue\r\n\r\n`,
      );
      await until("the body is refused before it is sent", () => received.text !== "");
      expect(received.text).toMatch(/^HTTP\/1.1 401/);
    }
  });

  it("sent with Expect: 100-continue is accepted if the token is valid", async () => {
    await open();
    const { socket, received, read } = await dial();
    read();
    const body = JSON.stringify({ name: "Lamp", price: 1, quantity: 1 });
    socket.write(
      `POST /products HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer ${seller.token ?? ""}\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\nExpect: 100-continue\r\n\r\n`,
    );
    await until("the body may be sent", () => received.text.startsWith("HTTP/1.1 100"));
    socket.write(body);
    await until("the body is accepted", () => received.text.includes("HTTP/1.1 201"));
  });

  it("that is begun and not finished holds a place of its address, which has at most a quarter of all", async () => {
    await open({ bodies: 16 });
    const head = "POST /token HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n{";
    for (let n = 0; n < 4; n++) (await dial()).socket.write(head);
    await until("four are begun", () => [...held().all.values()].filter(({ started }) => started.length > 0).length === 4);
    const fifth = await dial();
    fifth.read();
    fifth.socket.write(head);
    await until("the fifth is refused", () => fifth.received.text.startsWith("HTTP/1.1 429"));
    expect(held().bodies).toBe(4);
    expect((await shop.client().post("/token", { email: "a@b.co", password: "wrong" })).status).toBe(401);
  });

  it("that is begun and refused holds no place: however many an address begins, others are served", async () => {
    await open({ bodies: 16 });
    const head = (path: string) => `POST ${path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n{`;
    const all = await Promise.all(Array.from({ length: 40 }, () => dial()));
    for (const [n, { socket, read }] of all.entries()) {
      read();
      socket.write(head(n < 20 ? "/token" : "/orders"));
    }
    await until("all but four are refused", () => all.filter(({ received }) => /^HTTP\/1.1 4(01|29)/.test(received.text)).length === 36);
    expect(held().bodies).toBe(4);
    expect((await shop.client().post("/token", { email: "a@b.co", password: "wrong" })).status).toBe(401);
  });
});

describe("a body in chunks of one byte, without end,", () => {
  it.each([
    ["that its route does not take", `GET /products/${testId(999_999)}`, 404],
    ["at an unknown path", "POST /nothing", 404],
    ["without a token", "POST /orders", 401],
    ["with too many chunks", "POST /token", 400],
  ])("%s: the response is the last, and the rest is not read", async (_, target, status) => {
    await open();
    const { socket, received, read } = await dial();
    read();
    socket.write(`${target} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n`);
    const chunks = "1\r\na\r\n".repeat(2_000);
    const send = (): void => {
      if (!received.isClosed) socket.write(chunks, () => setImmediate(send));
    };
    send();
    await until("the connection is closed", () => received.isClosed, 5_000);
    expect(received.text).toMatch(new RegExp(`^HTTP/1.1 ${status} `));
    expect(received.text).toContain("Connection: close");
  });
});

describe("a body in chunks", () => {
  const body = JSON.stringify({ name: "Lamp", price: 1, quantity: 1, description: "x".repeat(4_900) });
  const head = (more = ""): string =>
    [
      "POST /products HTTP/1.1\r\nHost: a\r\nContent-Type: application/json",
      `Authorization: Bearer ${seller.token!}\r\nTransfer-Encoding: chunked\r\n${more}\r\n`,
    ].join("\r\n");
  const inChunks = (size: number): string =>
    `${[...body.matchAll(new RegExp(`.{1,${size}}`, "g"))].map(([part]) => `${part.length.toString(16)}\r\n${part}\r\n`).join("")}0\r\n\r\n`;
  const created = ({ text }: { text: string }): number => text.split("HTTP/1.1 201 ").length - 1;

  it.each([
    ["whole", [10_000], 100_000],
    ["in small chunks", [2], 100_000],
    ["in one packet per few chunks", [700], 1_000],
    ["in packets that end within a chunk", [5_000], 999],
  ])("(%s) is read, whatever the packets, as often as its connection sends one, beside other requests", async (_, [size = 0], packet) => {
    await open();
    const { socket, received, read } = await dial();
    read();
    const text = (head() + inChunks(size)).repeat(3) + get("/health/live") + head() + inChunks(size) + get("/health/live");
    for (let i = 0; i < text.length; i += packet) {
      socket.write(text.slice(i, i + packet));
      await new Promise((resolve) => setImmediate(resolve));
    }
    await until("all have their responses", () => created(received) === 4 && bodies(received.text) === 2, 20_000);
    expect(received.isClosed).toBe(false);
  });

  it("is awaited after Expect: 100-continue", async () => {
    await open();
    const { socket, received, read } = await dial();
    read();
    for (let n = 1; n <= 2; n++) {
      socket.write(head("Expect: 100-continue\r\n"));
      await until("the client may go on", () => received.text.split("HTTP/1.1 100 ").length - 1 === n);
      socket.write(inChunks(1_000));
      await until("the product is created", () => created(received) === n);
    }
  });
});

/** The longest turn of the event loop while `work` runs, in ms of this thread's CPU time, so that a busy machine makes no difference. */
async function longestTurn(work: () => Promise<void>): Promise<number> {
  let [longestMs, since, isOver] = [0, threadCpu(), false];
  const turn = (): void => {
    longestMs = Math.max(longestMs, threadCpu() - since);
    since = threadCpu();
    if (!isOver) setImmediate(turn);
  };
  setImmediate(turn);
  await work();
  await new Promise((resolve) => setImmediate(resolve));
  isOver = true;
  return longestMs;
}

describe("sixty requests at once in chunks of one byte", () => {
  const chunks = (count: number): string => "1\r\na\r\n".repeat(count);
  const head = (target: string): string =>
    `${target} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n`;

  it.each([
    ["whose route takes no body", `GET /products/${testId(999_999)}`, false],
    ["with too many chunks", "POST /token", false],
    ["that are all in the second packet", "POST /token", true],
  ])("%s are parsed a little in each turn of the event loop", async (_, target, isDivided) => {
    await open();
    const all = await Promise.all(Array.from({ length: 60 }, () => dial()));
    await until("all are accepted", () => ofDialled() === all.length);
    if (isDivided) {
      for (const { socket } of all) socket.write(head(target) + chunks(1));
      await until("all bodies are begun", () => held().bodies === all.length);
    }
    const longestMs = await longestTurn(async () => {
      for (const { socket, read } of all) {
        read();
        socket.write((isDivided ? "" : head(target)) + chunks(10_000));
      }
      await until("all have their responses", () => all.every(({ received }) => /^HTTP\/1.1 4\d\d /.test(received.text)), 20_000);
    });
    expect(longestMs).toBeLessThan(500); // all in one turn take a second or more
  });
});
