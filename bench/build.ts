import { execFile } from "node:child_process";
import { mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { cp } from "node:fs/promises";
import path from "node:path";
import { promisify } from "node:util";
import { databaseNames } from "../config";

export const ROOT = path.join(__dirname, "..");
const SHOP = ["config.ts", "moleculer.config.ts", "contracts", "broker", "mixins", "services", "scripts"];
/** Programs of the benchmark that run as separate processes, and modules preloaded into a node. */
const OURS = ["empty.ts", "raw.ts", "stock.ts", "load.worker.ts", "unbatched.ts", "loop-delay.ts", "sampler.ts"].map(
  (name) => `bench/${name}`,
);

/** Compiles the current tree: nothing is transpiled during a measurement, and edits during a run have no effect. */
export async function build(folder: string): Promise<string> {
  const out = path.join(folder, "build");
  mkdirSync(out);
  const tsconfig = {
    extends: path.join(ROOT, "tsconfig.json"),
    compilerOptions: { noCheck: true, types: ["node"], typeRoots: [path.join(ROOT, "node_modules/@types")], rootDir: ROOT, outDir: out },
    include: [...SHOP, ...OURS].map((name) => path.join(ROOT, name)),
    exclude: [],
  };
  writeFileSync(path.join(folder, "tsconfig.json"), JSON.stringify(tsconfig));
  const tsc = path.join(ROOT, "node_modules/typescript/bin/tsc");
  await promisify(execFile)(process.execPath, [tsc, "-p", path.join(folder, "tsconfig.json")]);
  for (const [service] of databaseNames()) {
    const migrations = path.join("services", service, "migrations");
    await cp(path.join(ROOT, migrations), path.join(out, migrations), { recursive: true });
  }
  symlinkSync(path.join(ROOT, "node_modules"), path.join(out, "node_modules"));
  return out;
}
