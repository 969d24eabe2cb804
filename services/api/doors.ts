import type { Server } from "node:http";
import { createServer, type ListenOptions, type Server as Door } from "node:net";

/** Listening sockets on the one port. */
const DOORS = 8;
/** Connections that wait at each to be accepted; by Node's 511, a burst of more would cost everybody who connects meanwhile a second. */
const BACKLOG = 4_096;

/**
 * libuv accepts one connection of a listening socket in each turn of the event loop, first come, first served: behind a hundred of one client,
 * the next person's would wait for a hundred turns. So there are several sockets on the port, among which Linux distributes what comes
 * (SO_REUSEPORT). Where they can't be had, as on Node 20 or macOS, there is one.
 */
export class Doors {
  private readonly others: Door[] = [];

  /** Node's own: the gateway's opens these. */
  private readonly listen: Server["listen"];

  constructor(private readonly server: Server) {
    this.listen = server.listen.bind(server);
  }

  /** @throws EADDRINUSE where anybody listens there already: a shared port alone would not tell */
  async open(port: number, host: string): Promise<void> {
    if (port !== 0) await isFree(port, host);
    const isShared = await listen(this.server, { port, host, backlog: BACKLOG, reusePort: true }, this.listen).then(
      () => true,
      () => false,
    );
    if (!isShared) await listen(this.server, { port, host, backlog: BACKLOG }, this.listen);
    const address = this.server.address();
    if (!isShared || address === null || typeof address === "string") return;
    while (this.others.length < DOORS - 1) {
      const door = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => this.server.emit("connection", socket));
      try {
        await listen(door, { port: address.port, host, backlog: BACKLOG, reusePort: true });
      } catch {
        return; // one is enough
      }
      this.others.push(door);
    }
  }

  /** Accepts no more. Ends when the last connection has ended. */
  async close(): Promise<void> {
    await Promise.all([this.server, ...this.others.splice(0)].map((door) => new Promise((resolve) => door.close(resolve))));
  }
}

const listen = (door: Door, options: ListenOptions, open: Door["listen"] = door.listen.bind(door)): Promise<void> =>
  new Promise((resolve, reject) => {
    door.once("error", reject);
    open(options, () => {
      door.off("error", reject);
      resolve();
    });
  });

async function isFree(port: number, host: string): Promise<void> {
  const probe = createServer();
  await listen(probe, { port, host });
  await new Promise((resolve) => probe.close(resolve));
}
