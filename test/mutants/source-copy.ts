import { existsSync } from "node:fs";
import { cp, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { ROOT } from "../../testkit/repository";
import type { Replacement } from "./mutants";

/** The sources that a shop in one process, its clients and the checks need. */
const SOURCES = [
  "config.ts",
  "variable-file.ts",
  "moleculer.config.ts",
  "package.json",
  "tsconfig.json",
  "contracts",
  "broker",
  "mixins",
  "services",
  "scripts",
  "testkit",
  "test/mutants",
];

/** A copy of the sources that is used for one mutant after the other, so that unchanged files are compiled only once. */
export class SourceCopy {
  private constructor(readonly folder: string) {}

  static async create(): Promise<SourceCopy> {
    const copy = new SourceCopy(await mkdtemp(path.join(tmpdir(), "shop-mutants-")));
    for (const name of SOURCES.filter((one) => existsSync(path.join(ROOT, one))))
      await cp(path.join(ROOT, name), path.join(copy.folder, name), { recursive: true });
    await symlink(path.join(ROOT, "node_modules"), path.join(copy.folder, "node_modules"));
    return copy;
  }

  /**
   * Runs `work` with these replacements, and restores the files afterwards.
   * @throws if a text to replace does not occur exactly once
   */
  async with<T>(replacements: readonly Replacement[], work: () => Promise<T>): Promise<T> {
    try {
      for (const { file, find, replace } of replacements) {
        const source = await readFile(path.join(this.folder, file), "utf8");
        const times = source.split(find).length - 1;
        if (times !== 1) throw new Error(`${file} contains the text that a mutant replaces ${times} times: ${find}`);
        await writeFile(
          path.join(this.folder, file),
          source.replace(find, () => replace),
        );
      }
      return await work();
    } finally {
      for (const { file } of replacements) await cp(path.join(ROOT, file), path.join(this.folder, file));
    }
  }

  remove(): Promise<void> {
    return rm(this.folder, { recursive: true, force: true });
  }
}
