import { readdirSync, readFileSync } from "node:fs";

/** Process ids by role. The cost of the processes with the same role is summed up. */
export type Roles = Readonly<Record<string, readonly number[]>>;

/** CPU seconds since their start, by role. */
export type Cpu = Record<string, number>;

/** `sysconf(_SC_CLK_TCK)`: Linux always uses 100 in /proc. */
export const TICKS = 100;

interface Stat {
  ppid: number;
  own: number;
  /** includes children that have exited and were waited for */
  all: number;
}

export function stat(pid: number): Stat | undefined {
  try {
    const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ").at(-1)?.split(" ").map(Number) ?? [];
    const [, ppid = 0, , , , , , , , , , utime = 0, stime = 0, cutime = 0, cstime = 0] = fields;
    return { ppid, own: (utime + stime) / TICKS, all: (utime + stime + cutime + cstime) / TICKS };
  } catch {
    return undefined; // it has exited
  }
}

export const pids = (): number[] =>
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
