import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { pause } from "../test/chaos/wait";

/** Process ids by role. The cost of the processes with the same role is summed up. */
export type Roles = Readonly<Record<string, readonly number[]>>;

/** CPU seconds since their start, by role. */
export type Cpu = Record<string, number>;

/** `sysconf(_SC_CLK_TCK)`: Linux always uses 100 in /proc. */
const TICKS = 100;
const LISTENS = "0A";

interface Stat {
  ppid: number;
  own: number;
  /** includes children that have exited and were waited for */
  all: number;
}

function stat(pid: number): Stat | undefined {
  try {
    const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ").at(-1)?.split(" ").map(Number) ?? [];
    const [, ppid = 0, , , , , , , , , , utime = 0, stime = 0, cutime = 0, cstime = 0] = fields;
    return { ppid, own: (utime + stime) / TICKS, all: (utime + stime + cutime + cstime) / TICKS };
  } catch {
    return undefined; // it has exited
  }
}

const pids = (): number[] =>
  readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map(Number);

export const childrenOf = (parent: number): number[] => pids().filter((pid) => stat(pid)?.ppid === parent);

/** CPU seconds of a postmaster, its children and its former children, so connections that are opened or closed meanwhile are counted. */
export function treeSeconds(root: number): number {
  let seconds = stat(root)?.all ?? 0;
  for (const pid of pids()) {
    const child = stat(pid);
    if (child?.ppid === root) seconds += child.all;
  }
  return seconds;
}

export function cpuOf(roles: Roles, postmaster?: number): Cpu {
  const cpu: Cpu = {};
  for (const [role, members] of Object.entries(roles)) cpu[role] = members.reduce((sum, pid) => sum + (stat(pid)?.own ?? 0), 0);
  if (postmaster !== undefined) cpu.postgres = treeSeconds(postmaster);
  return cpu;
}

export const difference = (before: Cpu, after: Cpu): Cpu =>
  Object.fromEntries(Object.entries(after).map(([role, seconds]) => [role, seconds - (before[role] ?? 0)]));

/** Resident memory, MB. */
export function rssOf(pid: number): number {
  try {
    return Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1] ?? 0) / 1024;
  } catch {
    return 0; // it has exited
  }
}

export const memoryOf = (roles: Roles): Record<string, number> =>
  Object.fromEntries(Object.entries(roles).map(([role, members]) => [role, members.reduce((sum, pid) => sum + rssOf(pid), 0)]));

/** Waits until the processes are idle. @returns how long that took, in ms */
export async function untilQuiet(members: readonly number[], ms = 30_000): Promise<number> {
  const every = 400;
  const since = performance.now();
  const seconds = (): number => members.reduce((sum, pid) => sum + (stat(pid)?.own ?? 0), 0);
  for (let before = seconds(); performance.now() - since < ms;) {
    await pause(every);
    const now = seconds();
    if (now - before < 1.5 / TICKS) return Math.max(0, performance.now() - since - every);
    before = now;
  }
  return performance.now() - since;
}

/** Starts measuring the machine's idle time. @returns a function that returns the idle share of the cores' time since then */
export function watchIdle(): () => number {
  const read = (): { idle: number; all: number } => {
    const [, ...times] = (readFileSync("/proc/stat", "utf8").split("\n")[0] ?? "").trim().split(/\s+/).map(Number);
    const [, , , idle = 0, waiting = 0] = times;
    return { idle: idle + waiting, all: times.slice(0, 8).reduce((sum, time) => sum + time, 0) };
  };
  const before = read();
  return () => {
    const now = read();
    return (now.idle - before.idle) / Math.max(1, now.all - before.all);
  };
}

/** The process that listens on a local port; undefined if it runs elsewhere, or this user may not see it. */
export function listenerOf(port: number): number | undefined {
  const suffix = `:${port.toString(16).toUpperCase().padStart(4, "0")}`;
  const inodes = new Set(
    ["tcp", "tcp6"].flatMap((table) =>
      readFileSync(`/proc/net/${table}`, "utf8")
        .split("\n")
        .map((line) => line.trim().split(/\s+/))
        .filter(([, local = "", , state]) => local.endsWith(suffix) && state === LISTENS)
        .map((fields) => `socket:[${fields[9] ?? ""}]`),
    ),
  );
  return pids().find((pid) => {
    try {
      return readdirSync(`/proc/${pid}/fd`).some((fd) => inodes.has(linkOf(`/proc/${pid}/fd/${fd}`)));
    } catch {
      return false; // exited, or another user's
    }
  });
}

function linkOf(file: string): string {
  try {
    return readlinkSync(file);
  } catch {
    return ""; // closed meanwhile
  }
}
