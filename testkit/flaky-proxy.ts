import { connect, createServer, type AddressInfo, type Server, type Socket } from "node:net";

/** A TCP proxy between one node and a server. It can be cut, refused, frozen and restored without affecting other nodes. */
export class FlakyProxy {
  /** when each connection was accepted, by Date.now() */
  readonly accepted: number[] = [];
  /** a chunk from the node for which this returns true is dropped, and its connection closed */
  cutsAt: (chunk: Buffer) => boolean = () => false;
  private readonly pairs = new Set<[Socket, Socket]>();
  private readonly abandoned: Socket[] = [];
  private refusing = false;
  private swallowing = false;

  private constructor(
    readonly url: string,
    private readonly server: Server,
  ) {}

  static async to(target: string): Promise<FlakyProxy> {
    const url = new URL(target);
    const port = Number(url.port || 5672);
    const host = url.hostname;
    const server = createServer((near) => line.accept(near, connect({ port, host })));
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    url.host = `127.0.0.1:${(server.address() as AddressInfo).port}`;
    const line = new FlakyProxy(url.href, server);
    return line;
  }

  /** the number of open connections */
  get open(): number {
    return this.pairs.size;
  }

  cut(): void {
    for (const pair of this.pairs) for (const socket of pair) socket.destroy();
  }

  refuse(): void {
    this.refusing = true;
    this.cut();
  }

  /** Forwards nothing and closes nothing, as when a cable is pulled. Only cut() ends it. */
  freeze(): void {
    for (const pair of this.pairs) for (const socket of pair) socket.removeAllListeners("data").pause();
  }

  /** Accepts connections but forwards nothing. */
  swallow(): void {
    this.swallowing = true;
  }

  restore(): void {
    this.refusing = false;
  }

  /** Closes the node's end without notifying RabbitMQ, as when a host loses power. Only close() ends it. */
  abandon(): void {
    for (const pair of this.pairs) {
      const [near, far] = pair;
      near.removeAllListeners("close").destroy();
      far.removeAllListeners("data").pause();
      this.abandoned.push(far);
      this.pairs.delete(pair);
    }
  }

  async close(): Promise<void> {
    this.cut();
    for (const socket of this.abandoned) socket.destroy();
    await new Promise((resolve) => this.server.close(resolve));
  }

  private accept(near: Socket, far: Socket): void {
    this.accepted.push(Date.now());
    const pair: [Socket, Socket] = [near, far];
    this.pairs.add(pair);
    for (const socket of pair) {
      socket.setNoDelay(true);
      socket.on("error", () => undefined); // "close" follows
      socket.on("close", () => {
        this.pairs.delete(pair);
        near.destroy();
        far.destroy();
      });
    }
    if (this.swallowing) return;
    near.on("data", (chunk: Buffer) => (this.cutsAt(chunk) ? near.destroy() : far.write(chunk)));
    far.on("data", (chunk: Buffer) => near.write(chunk));
    if (this.refusing) near.destroy();
  }
}
