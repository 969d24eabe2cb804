import { messageOf } from "./wait";

/** Ends what was begun: the last first, also what comes to it meanwhile, and each whatever becomes of the others. */
export async function endAll(parts: (() => Promise<void>)[]): Promise<void> {
  for (let end = parts.pop(); end !== undefined; end = parts.pop())
    await end().catch((error: unknown) => console.error("cleaning up:", messageOf(error)));
}
