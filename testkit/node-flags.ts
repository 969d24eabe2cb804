import { scripts } from "../package.json";

/** The limits of Node that `npm start` and the image set, also for the shop's processes in benchmarks and tests. */
export const NODE_FLAGS: readonly string[] = scripts.start.match(/--max\S+/g) ?? [];
