import { existsSync } from "node:fs";
import path from "node:path";

/*
 * Loaded into a node before anything else (`--require`): the same shop, with every item on its own. A module's exports can
 * be replaced before anyone has taken them, and compiled code takes them at each call.
 */
type Work = (items: readonly unknown[]) => Promise<readonly unknown[]>;

const file = path.join(__dirname, "..", "mixins", "batching.js");
if (!existsSync(file)) throw new Error(`${file} is not there: this shop does not batch, so there is nothing to switch off`);
// eslint-disable-next-line @typescript-eslint/no-require-imports -- its types may not be there
const batching = require(file) as Record<string, unknown>;
if (typeof batching.batch !== "function") throw new Error(`${file} exports no function batch: see bench/unbatched.ts`);

const batch = (work: Work) => async (item: unknown) => {
  const [result] = await work([item]);
  if (result instanceof Error) throw result;
  return result;
};
Object.assign(batching, { batch });
if (batching.batch !== batch) throw new Error(`${file}: its export could not be replaced`);
