import { seededRandom } from "../../../testkit/seeded-random";
import { VirtualClock } from "./clock";
import type { Response } from "./shop";

/** A response, or none, in the form of a history. */
export interface Result<T> {
  call: { begin: number; end?: number; outcome: "ok" | "failed" | "unknown"; gateway: string; status?: number; code?: string };
  seen: { seen?: T };
}

const TIMEOUT_MS = 1_500;

/**
 * The network between clients and a simulated shop. It is faulty a third of the time: requests are lost, take effect without a response, or
 * take effect long after the client's timeout.
 */
export class Network {
  readonly clock = new VirtualClock();
  readonly random: () => number;
  /** Number of requests that may still take effect after the client's timeout. */
  late = 0;
  hasFaults = false;

  constructor(seed: number) {
    this.random = seededRandom(seed);
  }

  upTo(limit: number): number {
    return this.random() * limit;
  }

  pick<T>(from: readonly T[]): T | undefined {
    return from[Math.floor(this.upTo(from.length))];
  }

  isFaulty(): boolean {
    return this.hasFaults && Math.floor(this.clock.now / 150) % 3 === 2;
  }

  /** @param effect runs at a moment between request and response @param done called once, with what the client observes */
  request<T>(effect: () => Response<T>, done: (result: Result<T>) => void): void {
    const begin = this.clock.now;
    const gateway = `gateway-${1 + Math.floor(this.upTo(3))}`;
    const fate = this.isFaulty() ? this.random() : 1;
    const [there, back] = [this.upTo(5), this.upTo(5)];
    const giveUp = () => {
      done({ call: { begin, outcome: "unknown", gateway }, seen: {} });
    };
    if (fate < 0.12) this.clock.after(TIMEOUT_MS, giveUp);
    else if (fate < 0.2) {
      this.clock.after(there, effect);
      this.clock.after(there + back, giveUp);
    } else if (fate < 0.24) {
      this.late++;
      this.clock.after(TIMEOUT_MS, giveUp);
      this.clock.after(TIMEOUT_MS + this.upTo(5_000), () => {
        this.late--;
        effect();
      });
    } else
      this.clock.after(there, () => {
        const response = effect();
        this.clock.after(back, () => {
          const call = { begin, end: this.clock.now, gateway };
          if ("ok" in response) done({ call: { ...call, outcome: "ok" }, seen: { seen: response.ok } });
          else done({ call: { ...call, outcome: "failed", ...response }, seen: {} });
        });
      });
  }
}
