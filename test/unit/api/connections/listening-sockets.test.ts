import { createServer, type Server } from "node:http";
import { connect, createServer as createNetServer, type AddressInfo, type Socket } from "node:net";
import { ListeningSockets } from "../../../../services/api/connections/listening-sockets";
import { until } from "../../../../testkit/until";

const portOf = (server: { address(): unknown }): number => (server.address() as AddressInfo).port;
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
const spin = (ms: number): void => {
  const since = performance.now();
  while (performance.now() - since < ms);
};

let server: Server;
let listeningSockets: ListeningSockets;
const sockets: Socket[] = [];
beforeEach(() => {
  server = createServer((_req, res) => res.end("served"));
  listeningSockets = new ListeningSockets(server);
});
afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.destroy();
  await listeningSockets.close();
});
const dial = (): Socket => {
  const socket = connect(portOf(server), "127.0.0.1");
  sockets.push(socket);
  return socket;
};

describe("the sockets that listen", () => {
  it("accept several connections in a turn of the event loop, however busy it is", async () => {
    await listeningSockets.open(0, "127.0.0.1");
    let accepted = 0;
    server.on("connection", () => accepted++);
    for (let n = 0; n < 64; n++) dial();
    let turns = 0;
    while (accepted < 64) {
      spin(2);
      turns++;
      await turn();
    }
    expect(turns).toBeLessThan(40);
  });

  it("all serve HTTP", async () => {
    await listeningSockets.open(0, "127.0.0.1");
    const texts = await Promise.all(
      Array.from({ length: 64 }, async () => {
        const socket = dial();
        let text = "";
        socket.on("data", (chunk) => (text += chunk.toString()));
        socket.write("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        await until("the connection is served", () => socket.destroyed);
        return text;
      }),
    );
    for (const text of texts) expect(text).toMatch(/^HTTP\/1.1 200 OK/);
  });

  it("are not opened on a port that is already in use", async () => {
    const other = new ListeningSockets(createServer());
    await other.open(0, "127.0.0.1");
    const taken = portOf((other as unknown as { server: Server }).server);
    await expect(listeningSockets.open(taken, "127.0.0.1")).rejects.toMatchObject({ code: "EADDRINUSE" });
    await other.close();
    await listeningSockets.open(taken, "127.0.0.1");
    expect(portOf(server)).toBe(taken);
  });

  it("close together after the last connection has ended, and free the port", async () => {
    await listeningSockets.open(0, "127.0.0.1");
    const port = portOf(server);
    const served = jest.fn();
    server.on("connection", served);
    for (let n = 0; n < 16; n++) dial();
    await until("all connections are accepted", () => served.mock.calls.length === 16);
    const closed = jest.fn();
    const closing = listeningSockets.close().then(closed);
    for (const socket of sockets.splice(0, 15)) socket.destroy();
    await turn();
    expect(closed).not.toHaveBeenCalled();
    for (const socket of sockets.splice(0)) socket.destroy();
    await closing;
    const next = createNetServer();
    await new Promise<void>((resolve, reject) => next.once("error", reject).listen(port, "127.0.0.1", resolve));
    await new Promise((resolve) => next.close(resolve));
  });
});
