import type { Server } from "node:http";
import { connect, type Socket } from "node:net";
import { until } from "../../testkit/until";
import { testId } from "../../testkit/ids";
import { startShop, type Shop } from "../../testkit/shop";

let shop: Shop;
const sockets: Socket[] = [];
beforeEach(async () => (shop = await startShop({ nodes: [["api"]] })));
afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.destroy();
  await shop.stop();
});

/** A client that sends this, and never closes its side. */
async function holdOpen(text: string): Promise<{ received: () => string; send: (text: string) => void }> {
  const { hostname, port } = new URL(shop.url);
  const socket = connect({ host: hostname, port: Number(port), allowHalfOpen: true });
  sockets.push(socket);
  let received = "";
  socket.on("data", (chunk) => (received += chunk.toString()));
  socket.on("error", () => undefined); // the gateway closed the connection
  await new Promise((resolve) => socket.once("connect", resolve));
  socket.write(text);
  return { received: () => received, send: (more) => socket.write(more) };
}

const options = async (path: string): Promise<number> => (await fetch(shop.url + path, { method: "OPTIONS" })).status;

describe("a misbehaving client", () => {
  it("sends OPTIONS for a path that can't be decoded: it gets a response, and the gateway keeps running", async () => {
    expect(await options("/products/%zz")).toBe(204);
    expect(await options(`/products/${testId(1)}`)).toBe(204);
  });

  it("sends no HTTP and keeps its side open: it gets a response and is disconnected", async () => {
    const client = await holdOpen("nonsense\r\n\r\n");
    await until("the response has arrived", () => client.received().startsWith("HTTP/1.1 400"));
    await until("the connection is closed", () => connections() === 0);
  });

  it("begins 600 requests and finishes none: other clients are served", async () => {
    const head = "POST /token HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n{";
    await Promise.all(Array.from({ length: 600 }, () => holdOpen(head)));
    await until("the gateway has all connections", () => connections() >= 600);
    expect(await options("/products")).toBe(204);
  });

  it("sends more than 100 header fields: it is refused; if it has 256 other connections, this one is not read for the next second", async () => {
    const request = (fields: number): string => `OPTIONS /products HTTP/1.1\r\nHost: a\r\n${"a: b\r\n".repeat(fields - 1)}\r\n`;
    const client = await holdOpen(request(100));
    await until("the response has arrived", () => client.received().startsWith("HTTP/1.1 204"));
    const responses = (status: number): number => client.received().split(`HTTP/1.1 ${status}`).length - 1;
    const refusedMs = async (times: number): Promise<number> => {
      client.send(request(101));
      await until("the refusal has arrived", () => responses(400) === times);
      const refusedAt = performance.now();
      client.send(request(100));
      await until("the next response has arrived", () => responses(204) === times + 1);
      return performance.now() - refusedAt;
    };
    await refusedMs(1);
    expect(client.received()).toContain("more than 100 header fields");
    await Promise.all(Array.from({ length: 256 }, () => holdOpen("")));
    await until("the gateway has all connections", () => connections() === 257);
    expect(await refusedMs(2)).toBeGreaterThan(900);
    const pipelinedAt = performance.now();
    client.send(request(101) + request(2).repeat(60));
    await until("all responses have arrived", () => responses(204) === 63);
    expect(performance.now() - pipelinedAt).toBeGreaterThan(900);
  });

  it("does not finish its request: it is disconnected within 30 s", async () => {
    const limits = server() as Server & { connectionsCheckingInterval: number };
    expect(limits.requestTimeout + limits.connectionsCheckingInterval).toBeLessThanOrEqual(30_000);
    expect(limits.headersTimeout).toBeLessThanOrEqual(limits.requestTimeout);
    limits.requestTimeout = limits.headersTimeout = 500; // read at each check
    const post = "POST /token HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n";
    const chunked = `${post}Transfer-Encoding: chunked\r\n\r\n`;
    const begun = ["", "GET /products HTTP/1.1\r\nHost:", `${post}Content-Length: 9\r\n\r\n{`, chunked, `${chunked}1\r\n{\r\n5\r\n"`];
    for (const bytes of begun) await holdOpen(bytes);
    await until("the gateway has the connections", () => connections() === begun.length);
    await until("the connections are closed", () => connections() === 0, 10_000);
  });

  it("holds a connection on which it has sent nothing, or half a head: the gateway still stops", async () => {
    await holdOpen("");
    await holdOpen("GET /products HTTP/1.1\r\nHost:");
    await until("the gateway has the connections", () => connections() === 2);
    await shop.node("api").stop();
  });
});

interface Gateway {
  server: Server;
  connections: { all: ReadonlyMap<unknown, unknown> };
}
const gateway = (): Gateway => shop.node("api").getLocalService("api") as unknown as Gateway;
const server = (): Server => gateway().server;
const connections = (): number => gateway().connections.all.size;
