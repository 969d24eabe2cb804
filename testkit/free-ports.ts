import { randomInt } from "node:crypto";
import { once } from "node:events";
import { createServer, type AddressInfo, type Server } from "node:net";

/** Below the ports that Linux and macOS give to outgoing connections, one of which could otherwise take a port before its server does. */
const [FIRST_PORT, LAST_PORT] = [10_000, 32_000];

/** Ports that were free a moment ago, all different. */
export async function freePorts(count: number): Promise<number[]> {
  const probes: Server[] = [];
  while (probes.length < count) {
    const probe = createServer().listen(randomInt(FIRST_PORT, LAST_PORT), "127.0.0.1");
    const isFree = await once(probe, "listening").then(
      () => true,
      () => false, // it is taken: try another
    );
    if (isFree) probes.push(probe);
  }
  const ports = probes.map((probe) => (probe.address() as AddressInfo).port);
  await Promise.all(probes.map((probe) => new Promise((closed) => probe.close(closed))));
  return ports;
}
