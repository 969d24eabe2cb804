import { setTimeout as pause } from "node:timers/promises";

/** Waits for a condition instead of a fixed time. @throws with the name of the condition, or at once what the condition throws */
export async function until(what: string, holds: () => boolean | Promise<boolean>, ms = 20_000): Promise<void> {
  const deadline = Date.now() + ms;
  while (!(await holds())) {
    if (Date.now() > deadline) throw new Error(`still waiting after ${ms} ms: ${what}`);
    await pause(20);
  }
}

/** Like `until`, but an error in the condition counts as "not yet". @throws with the condition's name and the last error */
export async function eventually(what: string, holds: () => unknown, ms = 20_000, every = 50): Promise<void> {
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
