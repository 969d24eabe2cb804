import { messageOf } from "./wait";

/** Cleans up in reverse order, including parts added meanwhile. A failure doesn't stop the rest. */
export async function endAll(parts: (() => Promise<void>)[]): Promise<void> {
  for (let end = parts.pop(); end !== undefined; end = parts.pop())
    await end().catch((error: unknown) => console.error("cleaning up:", messageOf(error)));
}
