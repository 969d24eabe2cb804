import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { newestRelease } from "../../../testkit/release";

describe("the newest release before HEAD", () => {
  let root: string;
  const git = (...args: string[]): string =>
    execFileSync("git", ["-c", "user.name=test", "-c", "user.email=test@shop.test", ...args], { cwd: root, encoding: "utf8" }).trim();
  /** @returns its revision */
  const commit = (subject: string, version = "0.2.0-dev"): string => {
    writeFileSync(path.join(root, "package.json"), JSON.stringify({ version }));
    git("add", ".");
    git("commit", "-q", "--allow-empty", "-m", subject);
    return git("rev-parse", "HEAD");
  };

  beforeEach(() => {
    root = mkdtempSync(path.join(tmpdir(), "shop-release-"));
    git("init", "-q");
    commit("Begin");
  });
  afterEach(() => rmSync(root, { recursive: true }));

  it("is none if nothing was released, whatever a commit has in its body or after the version", async () => {
    commit("Prepare\n\nRelease 0.2.0");
    commit("Release 0.2.0 at last");
    commit("Go on");
    await expect(newestRelease(root)).resolves.toBeUndefined();
  });

  it("is none if HEAD is the first release", async () => {
    commit("Release 0.2.0", "0.2.0");
    await expect(newestRelease(root)).resolves.toBeUndefined();
  });

  it("is the last of several", async () => {
    commit("Release 0.2.0", "0.2.0");
    const revision = commit("Release 0.2.1", "0.2.1");
    commit("Go on");
    await expect(newestRelease(root)).resolves.toEqual({ revision, version: "0.2.1" });
  });

  it("is refused if its package.json has another version", async () => {
    commit("Release 0.2.0", "0.1.9");
    commit("Go on");
    await expect(newestRelease(root)).rejects.toThrow("its package.json has version 0.1.9");
  });

  it("is not guessed in a shallow clone", async () => {
    commit("Release 0.2.0", "0.2.0");
    commit("Go on");
    const shallow = path.join(root, "shallow");
    git("clone", "-q", "--depth", "1", `file://${root}`, shallow);
    await expect(newestRelease(shallow)).rejects.toThrow("git fetch --unshallow");
  });
});
