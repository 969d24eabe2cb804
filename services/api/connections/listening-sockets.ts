import type { Server } from "node:http";
import { createServer, type ListenOptions, type Server as NetServer } from "node:net";

/** Number of listening sockets on the port. */
const SOCKETS = 8;
/** Accept queue of each. With Node's default of 511, a larger burst would delay every new connection by a second. */
const BACKLOG = 4_096;

/**
 * libuv accepts one connection per listening socket in each turn of the event loop, in order of arrival: behind a hundred connections of
 * one client, the next client would wait for a hundred turns. So several sockets listen on the port, and Linux distributes connections
 * among them (SO_REUSEPORT). Where that is not supported, as on Node 20 or macOS, there is one socket.
 */
export class ListeningSockets {
  private readonly others: NetServer[] = [];

  /** Node's own `listen`: the gateway replaces the server's with one that calls `open`. */
  private readonly listen: Server["listen"];

  constructor(private readonly server: Server) {
    this.listen = server.listen.bind(server);
  }

  /** @throws EADDRINUSE if the port is in use, which listening with `reusePort` would not report */
  async open(port: number, host: string): Promise<void> {
    if (port !== 0) await isFree(port, host);
    const isShared = await listen(this.server, { port, host, backlog: BACKLOG, reusePort: true }, this.listen).then(
      () => true,
      () => false,
    );
    if (!isShared) await listen(this.server, { port, host, backlog: BACKLOG }, this.listen);
    const address = this.server.address();
    if (!isShared || address === null || typeof address === "string") return;
    while (this.others.length < SOCKETS - 1) {
      const listener = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => this.server.emit("connection", socket));
      try {
        await listen(listener, { port: address.port, host, backlog: BACKLOG, reusePort: true });
      } catch {
        return; // fewer sockets suffice
      }
      this.others.push(listener);
    }
  }

  /** Stops accepting connections. Resolves when the last connection is closed. */
  async close(): Promise<void> {
    await Promise.all([this.server, ...this.others.splice(0)].map((listener) => new Promise((resolve) => listener.close(resolve))));
  }
}

const listen = (listener: NetServer, options: ListenOptions, open: NetServer["listen"] = listener.listen.bind(listener)): Promise<void> =>
  new Promise((resolve, reject) => {
    listener.once("error", reject);
    open(options, () => {
      listener.off("error", reject);
      resolve();
    });
  });

async function isFree(port: number, host: string): Promise<void> {
  const probe = createServer();
  await listen(probe, { port, host });
  await new Promise((resolve) => probe.close(resolve));
}
