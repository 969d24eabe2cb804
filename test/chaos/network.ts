import { execFileSync } from "node:child_process";
import type { Place } from "../../testkit/rabbitmq";

const ip = (...args: string[]): void => void execFileSync("ip", args, { stdio: ["ignore", "ignore", "pipe"] });

/** Network namespaces on one bridge, each with an address that the host can reach. Needs root on Linux. */
export class Network {
  private readonly subnet = `10.213.${process.pid % 250}`;
  private readonly bridge = `chaos${process.pid}`; // at most 15 characters

  private constructor(private readonly count: number) {}

  /** @returns why it can't be used here */
  static impossible(): string | undefined {
    try {
      new Network(1).build().stop();
      return undefined;
    } catch {
      return "network namespaces can't be made here: root and iproute2 are needed";
    }
  }

  static start(count: number): Network {
    return new Network(count).build();
  }

  get places(): Place[] {
    return Array.from({ length: this.count }, (_, n) => ({ address: this.address(n), namespace: this.namespace(n) }));
  }

  /** Drops all packets between one namespace and the others without notifying either side. The host still reaches all of them. */
  isolate(n: number): void {
    for (const other of this.others(n)) {
      ip("-n", this.namespace(n), "route", "add", "blackhole", this.address(other));
      ip("-n", this.namespace(other), "route", "add", "blackhole", this.address(n));
    }
  }

  rejoin(n: number): void {
    for (const other of this.others(n)) {
      ip("-n", this.namespace(n), "route", "del", "blackhole", this.address(other));
      ip("-n", this.namespace(other), "route", "del", "blackhole", this.address(n));
    }
  }

  /** Drops all packets of a namespace without notification, as when a cable is pulled. */
  unplug(n: number): void {
    ip("link", "set", this.cable(n), "down");
  }

  plug(n: number): void {
    ip("link", "set", this.cable(n), "up");
  }

  stop(): void {
    for (let n = 0; n < this.count; n++) attempt("netns", "del", this.namespace(n));
    attempt("link", "del", this.bridge);
  }

  private build(): this {
    try {
      ip("link", "add", "name", this.bridge, "type", "bridge");
      ip("addr", "add", `${this.subnet}.1/24`, "dev", this.bridge);
      ip("link", "set", this.bridge, "up");
      for (let n = 0; n < this.count; n++) {
        const namespace = this.namespace(n);
        ip("netns", "add", namespace);
        ip("link", "add", this.cable(n), "type", "veth", "peer", "name", "eth0", "netns", namespace);
        ip("link", "set", this.cable(n), "master", this.bridge);
        this.plug(n);
        ip("-n", namespace, "addr", "add", `${this.address(n)}/24`, "dev", "eth0");
        for (const device of ["eth0", "lo"]) ip("-n", namespace, "link", "set", device, "up");
      }
      return this;
    } catch (error) {
      this.stop();
      throw error;
    }
  }

  private others(n: number): number[] {
    return Array.from({ length: this.count }, (_, other) => other).filter((other) => other !== n);
  }

  private namespace(n: number): string {
    return `${this.bridge}-${n}`;
  }

  private cable(n: number): string {
    return `v${n}-${process.pid}`;
  }

  private address(n: number): string {
    return `${this.subnet}.${n + 10}`;
  }
}

function attempt(...args: string[]): void {
  try {
    ip(...args);
  } catch {
    // it wasn't created, or was removed together with another
  }
}
