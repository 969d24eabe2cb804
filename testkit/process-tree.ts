import type { ChildProcess } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";

/** Whether a process is running that this user may signal. */
export function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}

/**
 * Sends SIGKILL to a child process and its descendants. Never use a pid from a file: a missing file would read as pid 0,
 * whose descendants are all processes of the machine.
 */
export function killTree(child: ChildProcess): void {
  const { pid } = child;
  if (pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
  signalTree(pid, "SIGKILL");
}

/** @param root a process that is certainly ours */
export function signalTree(root: number, signal: NodeJS.Signals): void {
  for (const one of processTree(root)) {
    try {
      process.kill(one, signal);
    } catch {
      // it exited with its parent
    }
  }
}

function processTree(root: number): number[] {
  if (!Number.isInteger(root) || root <= 1 || root === process.pid) throw new Error(`${root} is not a child process of ours`);
  const parents = readdirSync("/proc").flatMap((name): [number, number][] => {
    if (!/^\d+$/.test(name)) return [];
    try {
      const fields = readFileSync(`/proc/${name}/stat`, "utf8").split(") ").at(-1)?.split(" ") ?? [];
      return [[Number(name), Number(fields[1])]];
    } catch {
      return []; // the process has just exited
    }
  });
  const tree = [root];
  for (const pid of tree) tree.push(...parents.filter(([, parent]) => parent === pid).map(([child]) => child));
  return tree;
}
