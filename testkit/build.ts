import { execFile } from "node:child_process";
import { existsSync, mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { cp } from "node:fs/promises";
import path from "node:path";
import { promisify } from "node:util";
import { databaseNames } from "../config";
import { ROOT } from "./repository";

const run = promisify(execFile);
const SHOP = ["config.ts", "moleculer.config.ts", "contracts", "broker", "mixins", "services", "scripts"];

/**
 * Compiles the shop, so that nodes start quickly, nothing is transpiled during a measurement, and edits during a run have no effect.
 * @param folder where `build` is created
 * @param more other files of this tree to compile, such as preloads of nodes; they are copied into another tree
 * @param root the tree to compile, with its node_modules
 * @returns the folder of the build
 */
export async function build(folder: string, more: readonly string[] = [], root = ROOT): Promise<string> {
  const out = path.join(folder, "build");
  mkdirSync(out, { recursive: true });
  if (root !== ROOT) for (const file of more) await cp(path.join(ROOT, file), path.join(root, file));
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
    include: [...SHOP, ...more].map((name) => path.join(root, name)),
    exclude: [],
  };
  writeFileSync(path.join(folder, "tsconfig.json"), JSON.stringify(tsconfig));
  await run(process.execPath, [path.join(root, "node_modules/typescript/bin/tsc"), "-p", path.join(folder, "tsconfig.json")]);
  for (const [service] of databaseNames()) {
    const migrations = path.join("services", service, "migrations");
    if (!existsSync(path.join(root, migrations))) continue; // the tree is a release without this service
    await cp(path.join(root, migrations), path.join(out, migrations), { recursive: true });
  }
  symlinkSync(path.join(root, "node_modules"), path.join(out, "node_modules"));
  return out;
}
