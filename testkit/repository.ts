import { readFileSync } from "node:fs";
import path from "node:path";

/** The root of the repository. */
export const ROOT = path.resolve(__dirname, "..");

/** @param file relative to the root */
export const textOf = (file: string): string => readFileSync(path.join(ROOT, file), "utf8");
