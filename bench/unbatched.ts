import { existsSync } from "node:fs";
import path from "node:path";

/*
 * Preloaded into a node (`--require`): the same shop, but with batches of one item. This replaces the export of mixins/batching before other modules
 * load it; compiled code reads the export at each call.
 */
type Work = (items: readonly unknown[]) => Promise<readonly unknown[]>;

const file = path.join(__dirname, "..", "mixins", "batching.js");
if (!existsSync(file)) throw new Error(`${file} is not there: this shop has no batching that could be switched off`);
// eslint-disable-next-line @typescript-eslint/no-require-imports -- its types may be missing
const batching = require(file) as Record<string, unknown>;
if (typeof batching.batch !== "function") throw new Error(`${file} exports no function batch: see bench/unbatched.ts`);

const batch = (work: Work) => async (item: unknown) => {
  const [result] = await work([item]);
  if (result instanceof Error) throw result;
  return result;
};
Object.assign(batching, { batch });
if (batching.batch !== batch) throw new Error(`${file}: its export could not be replaced`);
