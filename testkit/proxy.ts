import { once } from "node:events";
import { connect, createServer, type AddressInfo, type Server, type Socket } from "node:net";

/** When to cut a chunk's connection: before the chunk is forwarded, or before its response is. */
export type Cut = "request" | "response" | undefined;

interface Pair {
  near: Socket;
  far: Socket | undefined;
  /** the server's next chunk is dropped and closes the connection */
  isResponseLost: boolean;
}

/** A TCP proxy between nodes and a server that can be frozen, reset, slowed down, and cut at a certain chunk. */
export class Proxy {
  /** called for each chunk from the node */
  cutsAt: (chunk: Buffer) => Cut = () => undefined;
  /** added in each direction, ms */
  latency = 0;
  /** bytes per second, per connection and direction */
  throughput = Infinity;
  private readonly pairs = new Set<Pair>();
  private frozen = false;

  private constructor(
    private target: URL,
    private readonly defaultPort: number,
    private readonly server: Server,
  ) {}

  static async to(target: string, defaultPort: number): Promise<Proxy> {
    const server = createServer((near) => proxy.accept(near));
    const proxy = new Proxy(new URL(target), defaultPort, server);
    await once(server.listen(0, "127.0.0.1"), "listening");
    return proxy;
  }

  /** The target's URL through this proxy. */
  get url(): string {
    const url = new URL(this.target);
    url.host = `127.0.0.1:${(this.server.address() as AddressInfo).port}`;
    return url.href;
  }

  /** Sends new connections to another server. */
  retarget(url: string): void {
    this.target = new URL(url);
  }

  leadsTo(url: string): boolean {
    return this.target.href === new URL(url).href;
  }

  /** Forwards nothing and closes nothing, as when a cable is pulled. */
  freeze(): void {
    this.frozen = true;
    for (const { near, far } of this.pairs) for (const socket of [near, far]) socket?.pause();
  }

  thaw(): void {
    this.frozen = false;
    for (const pair of this.pairs) {
      if (pair.far === undefined) this.dial(pair);
      else for (const socket of [pair.near, pair.far]) socket.resume();
    }
  }

  /** Sends a TCP RST to both ends. */
  reset(): void {
    for (const { near, far } of this.pairs) for (const socket of [near, far]) socket?.resetAndDestroy();
  }

  slowDown(latency: number, throughput: number): void {
    Object.assign(this, { latency, throughput });
  }

  close(): void {
    this.reset();
    this.server.close();
  }

  private accept(near: Socket): void {
    const pair: Pair = { near, far: undefined, isResponseLost: false };
    this.pairs.add(pair);
    this.watch(pair, near);
    if (this.frozen) near.pause();
    else this.dial(pair);
  }

  private dial(pair: Pair): void {
    const { near } = pair;
    const far = (pair.far = connect(Number(this.target.port || this.defaultPort), this.target.hostname));
    this.watch(pair, far);
    this.forward(near, far, (chunk) => {
      const cut = this.cutsAt(chunk);
      if (cut === "response") pair.isResponseLost = true;
      if (cut === "request") near.destroy();
      return cut !== "request";
    });
    this.forward(far, near, () => {
      if (pair.isResponseLost) near.destroy();
      return !pair.isResponseLost;
    });
  }

  private watch(pair: Pair, socket: Socket): void {
    socket.setNoDelay(true);
    socket.on("error", () => undefined); // "close" follows
    socket.on("close", () => {
      this.pairs.delete(pair);
      pair.near.destroy();
      pair.far?.destroy();
    });
  }

  private forward(from: Socket, to: Socket, passes: (chunk: Buffer) => boolean): void {
    let free = 0; // when all earlier chunks have been sent
    from.on("data", (chunk: Buffer) => {
      if (!passes(chunk)) return;
      const now = performance.now();
      free = Math.max(now, free) + (chunk.length / this.throughput) * 1000;
      const wait = free + this.latency - now;
      if (wait < 1 && !this.frozen) to.write(chunk);
      else this.forwardLater(to, chunk, wait);
    });
  }

  private forwardLater(to: Socket, chunk: Buffer, wait: number): void {
    setTimeout(() => {
      if (this.frozen) this.forwardLater(to, chunk, 20);
      else to.write(chunk);
    }, wait);
  }
}
