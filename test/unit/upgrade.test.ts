import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { newestRelease } from "../chaos/release";
import { NEW, OLD, Traffic } from "../upgrade/traffic";

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

  it("is none where nothing was released, whatever a commit says in its body or after the version", async () => {
    commit("Prepare\n\nRelease 0.2.0");
    commit("Release 0.2.0 at last");
    commit("Go on");
    await expect(newestRelease(root)).resolves.toBeUndefined();
  });

  it("is none while HEAD is the first one", async () => {
    commit("Release 0.2.0", "0.2.0");
    await expect(newestRelease(root)).resolves.toBeUndefined();
  });

  it("is the last of several", async () => {
    commit("Release 0.2.0", "0.2.0");
    const revision = commit("Release 0.2.1", "0.2.1");
    commit("Go on");
    await expect(newestRelease(root)).resolves.toEqual({ revision, version: "0.2.1" });
  });

  it("is refused where its package.json has another version", async () => {
    commit("Release 0.2.0", "0.1.9");
    commit("Go on");
    await expect(newestRelease(root)).rejects.toThrow("its package.json says 0.1.9");
  });

  it("is not guessed where the clone lacks a part of the history", async () => {
    commit("Release 0.2.0", "0.2.0");
    commit("Go on");
    const shallow = path.join(root, "shallow");
    git("clone", "-q", "--depth", "1", `file://${root}`, shallow);
    await expect(newestRelease(shallow)).rejects.toThrow("git fetch --unshallow");
  });
});

describe("what went between an old and a new version", () => {
  const both = (traffic: Traffic, what: string, service: string): void => {
    traffic.note(what, `${service}-${OLD}.1`, NEW);
    traffic.note(what, `${service}-${NEW}.2`, OLD);
  };

  it("lacks an action that went one way only, or not at all", () => {
    const traffic = new Traffic();
    both(traffic, "orders.get", "api");
    traffic.note("orders.list", `api-${OLD}.1`, NEW);
    const names = new Set(["orders.cancel", "orders.get", "orders.list"]);
    expect(traffic.missing(names, names)).toEqual([
      "orders.cancel never went from old nodes to new nodes",
      "orders.cancel never went from new nodes to old nodes",
      "orders.list never went from new nodes to old nodes",
    ]);
  });

  it("lacks the way of a service that sent it to its own version only", () => {
    const traffic = new Traffic();
    both(traffic, "users.record", "orders");
    traffic.note("users.record", `products-${OLD}.1`, OLD);
    const names = new Set(["users.record"]);
    expect(traffic.missing(names, names)).toEqual(["users.record never went from old products to new nodes"]);
  });

  it("asks of a new action only that it was used, and counts nothing of whoever is no node of either version", () => {
    const traffic = new Traffic();
    traffic.note("orders.get", "chaos-1732650000000", NEW);
    expect(traffic.missing(new Set(), new Set(["orders.get"]))).toEqual(["orders.get is new, and was never used"]);
    traffic.note("orders.get", `api-${NEW}.1`, NEW);
    expect(traffic.missing(new Set(), new Set(["orders.get"]))).toEqual([]);
  });
});
