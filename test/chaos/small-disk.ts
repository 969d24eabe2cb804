import { execFileSync } from "node:child_process";
import { closeSync, mkdirSync, mkdtempSync, openSync, readdirSync, readlinkSync, rmSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { codeOf } from "../../scripts/postgres-binaries";
import { eventually } from "../../testkit/until";
import { USER } from "./postgres-server";

const MIB = 1024 * 1024;
/** A page of tmpfs. */
const PAGE = Buffer.alloc(4_096);
const FILLER = "filler";

/** A disk of a few megabytes (a tmpfs) that can be filled. Needs root on Linux. */
export class SmallDisk {
  private isMounted = false;

  private constructor(readonly folder: string) {}

  /** @returns why it can't be used here */
  static impossible(): string | undefined {
    const folder = mkdtempSync(path.join(tmpdir(), "shop-disk-"));
    try {
      new SmallDisk(folder).mount(1).unmount();
      return undefined;
    } catch {
      return "a tmpfs can't be mounted here: root is needed";
    } finally {
      rmSync(folder, { recursive: true });
    }
  }

  /** Mounts an empty disk owned by the user that runs PostgreSQL. @param size MiB */
  static mount(folder: string, size: number): SmallDisk {
    mkdirSync(folder, { recursive: true });
    return new SmallDisk(folder).mount(size);
  }

  private mount(size: number): this {
    const owner = USER.uid === undefined ? "" : `,uid=${USER.uid},gid=${USER.gid}`;
    execFileSync("mount", ["-t", "tmpfs", "-o", `size=${size * MIB},mode=0700${owner}`, "chaos", this.folder], { stdio: "pipe" });
    this.isMounted = true;
    return this;
  }

  /** Fills it to the last page. */
  fill(): void {
    const file = openSync(path.join(this.folder, FILLER), "a");
    try {
      for (;;) writeSync(file, PAGE);
    } catch (error) {
      if (codeOf(error) !== "ENOSPC") throw error;
    } finally {
      closeSync(file);
    }
  }

  free(): void {
    rmSync(path.join(this.folder, FILLER), { force: true });
  }

  /** Kills servers that still use it, and unmounts it. May be called more than once. */
  async remove(): Promise<void> {
    await eventually(`${this.folder} is unmounted`, () => {
      for (const pid of this.processesInside()) process.kill(pid, "SIGKILL");
      this.unmount();
      return true;
    });
  }

  private unmount(): void {
    if (!this.isMounted) return;
    execFileSync("umount", [this.folder], { stdio: "pipe" });
    this.isMounted = false;
  }

  /** Processes with this working directory. The folder is new, so they can only be ours. */
  private processesInside(): number[] {
    const worksHere = (name: string): boolean => {
      try {
        return /^\d+$/.test(name) && readlinkSync(`/proc/${name}/cwd`) === this.folder;
      } catch {
        return false; // the process has just exited
      }
    };
    return readdirSync("/proc").filter(worksHere).map(Number);
  }
}
