import { execFile } from "node:child_process";
import { mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { cp } from "node:fs/promises";
import path from "node:path";
import { promisify } from "node:util";
import { databaseNames } from "../../config";

const run = promisify(execFile);
export const ROOT = path.join(__dirname, "..", "..");

const SOURCES = ["config.ts", "moleculer.config.ts", "contracts", "broker", "mixins", "services", "scripts"];
/** Preloads for nodes; an older tree may lack some of them. */
const PRELOADS = ["test/chaos/failpoints.ts", "test/upgrade/witness.ts"];

/**
 * Builds a source tree, so that nodes start quickly and edits during a run have no effect.
 * @param folder where `build` is created
 * @param root the tree, with its node_modules
 * @returns the folder of the build
 */
export async function build(folder: string, root = ROOT): Promise<string> {
  const out = path.join(folder, "build");
  mkdirSync(out, { recursive: true });
  const compilerOptions = {
    noCheck: true,
    types: ["node"],
    typeRoots: [path.join(root, "node_modules/@types")],
    rootDir: root,
    outDir: out,
  };
  const tsconfig = {
    extends: path.join(root, "tsconfig.json"),
    compilerOptions,
    include: [...SOURCES, ...PRELOADS].map((name) => path.join(root, name)),
    exclude: [],
  };
  writeFileSync(path.join(folder, "tsconfig.json"), JSON.stringify(tsconfig));
  await run(process.execPath, [path.join(root, "node_modules/typescript/bin/tsc"), "-p", path.join(folder, "tsconfig.json")]);
  for (const [service] of databaseNames()) {
    const migrations = path.join("services", service, "migrations");
    await cp(path.join(root, migrations), path.join(out, migrations), { recursive: true });
  }
  symlinkSync(path.join(root, "node_modules"), path.join(out, "node_modules"));
  return out;
}
