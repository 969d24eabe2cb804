import { scripts } from "../package.json";

/** The limits of Node that `npm start` and the image set: processes that stand for the shop have them too. */
export const NODE_FLAGS: readonly string[] = scripts.start.match(/--max\S+/g) ?? [];
