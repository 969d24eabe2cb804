import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { setTimeout as pause } from "node:timers/promises";
import { pids, stat, TICKS } from "../testkit/process-stats";

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

/** The state LISTEN in /proc/net/tcp. */
const LISTENS = "0A";

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
