import { randomInt } from "node:crypto";
import { once } from "node:events";
import { createServer, type AddressInfo, type Server } from "node:net";
import { setTimeout as pause } from "node:timers/promises";

export { pause };

/** Waits for a condition; an error in it counts as "not yet". @throws with the condition's name and the last error */
export async function until(what: string, holds: () => unknown, ms = 20_000, every = 50): Promise<void> {
  const deadline = Date.now() + ms;
  let last: unknown;
  for (;;) {
    try {
      if (await holds()) return;
    } catch (error) {
      last = error;
    }
    if (Date.now() > deadline) throw new Error(`still waiting after ${ms} ms: ${what}${last instanceof Error ? ` (${last.message})` : ""}`);
    await pause(every);
  }
}

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

export const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));

/** A pseudo-random generator of numbers from 0 to 1, deterministic for a seed (mulberry32). */
export function seeded(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}
