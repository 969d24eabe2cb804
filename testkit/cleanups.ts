import { messageOf } from "./error-message";

/** Runs cleanups in reverse order, including those added meanwhile. A failure doesn't stop the rest. */
export async function runCleanups(cleanups: (() => unknown)[]): Promise<void> {
  for (let cleanup = cleanups.pop(); cleanup !== undefined; cleanup = cleanups.pop()) {
    try {
      await cleanup();
    } catch (error) {
      console.error("cleaning up:", messageOf(error));
    }
  }
}
