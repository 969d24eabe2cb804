import { createServer, type IncomingMessage } from "node:http";
import { connect, type AddressInfo, type Socket } from "node:net";
import { promisify } from "node:util";
import { ClientAddress } from "../../../../services/api/http/client-address";
import { Connections } from "../../../../services/api/connections/connections";
import { LoopTurns } from "../../../../services/api/connections/loop-turns";
import { until } from "../../../../testkit/until";

const nobody = { address: "other", user: undefined };

/** Longer than the event loop may work for one turn. */
const rush = (): void => {
  const since = performance.now();
  while (performance.now() - since < 6);
};

describe("connections of an address that has many", () => {
  // One address may have a quarter of the sockets; with more than a quarter of that, it has many.
  const server = createServer();
  const turns = new LoopTurns();
  const connections = new Connections(server, new ClientAddress([]), turns, () => undefined, { sockets: 32, largestBytes: () => 0 });
  server.on("request", (req, res) => {
    if (req.url === "/rush") turns.run(nobody, rush);
    connections.open("id", req, res, () => res.end());
  });
  const sockets: Socket[] = [];
  beforeAll(() => new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve)));
  afterAll(async () => {
    connections.stop();
    await new Promise((resolve) => server.close(resolve));
  });

  async function open(): Promise<(target: string) => Promise<void>> {
    const socket = connect((server.address() as AddressInfo).port, "127.0.0.1");
    sockets.push(socket);
    let text = "";
    socket.on("data", (chunk) => (text += chunk.toString()));
    await new Promise((resolve) => socket.once("connect", resolve));
    return async (target) => {
      text = "";
      socket.write(`GET ${target} HTTP/1.1\r\nHost: a\r\n\r\n`);
      await until("the response has arrived", () => text.startsWith("HTTP/1.1 200"));
    };
  }

  /** Milliseconds until the response to a request that follows one to `target`. */
  async function nextMs(target: string, connectionsOpen: number): Promise<number> {
    const [send] = await Promise.all(Array.from({ length: connectionsOpen }, open));
    await send!("/calm"); // by now the others have been accepted, too
    await send!(target);
    const since = performance.now();
    await send!("/calm");
    const tookMs = performance.now() - since;
    for (const socket of sockets.splice(0)) socket.destroy();
    const count = promisify(server.getConnections.bind(server));
    await until("the connections are closed", async () => (await count()) === 0);
    return tookMs;
  }

  it("are not read for a second after a request that arrived while the event loop was busy", async () => {
    expect(await nextMs("/rush", 3)).toBeGreaterThan(900);
  });

  it("are read on if the event loop was not busy, or if there are few", async () => {
    expect(await nextMs("/calm", 3)).toBeLessThan(900);
    expect(await nextMs("/rush", 2)).toBeLessThan(900);
  });
});

describe("a body in chunks whose reader waits", () => {
  const server = createServer();
  const connections = new Connections(server, new ClientAddress([]), new LoopTurns(), () => undefined, { largestBytes: () => 0 });
  const requests: IncomingMessage[] = [];
  server.on("request", (req, res) => {
    connections.open("id", req, res, () => requests.push(req));
  });
  server.on("clientError", (error, socket) => {
    if (!connections.resumeIfPaused(socket as never, error)) socket.destroy();
  });
  beforeAll(() => new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve)));
  afterAll(async () => {
    connections.stop();
    await new Promise((resolve) => server.close(resolve));
  });

  it("is not received beyond what fits the stream's buffer, and whole once it is read", async () => {
    const size = 8 * 1_048_576;
    const socket = connect((server.address() as AddressInfo).port, "127.0.0.1");
    socket.write("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    socket.write(Buffer.concat([Buffer.from(`${size.toString(16)}\r\n`), Buffer.alloc(size), Buffer.from("\r\n0\r\n\r\n")]));
    await until("the head has arrived", () => requests.length === 1);
    const [request] = requests as [IncomingMessage];
    await until("the buffer is full", () => request.readableLength >= request.readableHighWaterMark);
    for (let turn = 0; turn < 1_000; turn++) await new Promise((resolve) => setImmediate(resolve));
    expect(request.readableLength).toBeLessThan(request.readableHighWaterMark + 65_536);
    let received = 0;
    for await (const part of request) received += (part as Buffer).length;
    expect(received).toBe(size);
    socket.destroy();
  });
});
