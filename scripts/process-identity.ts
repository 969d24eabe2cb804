import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { codeOf } from "./postgres-binaries";

/** The pid, with the start time if cheaply available, since pids are reused. Undefined if the process has terminated. */
export function identify(pid: number): string | undefined {
  if (!(pid > 0)) return undefined;
  try {
    if (process.platform === "linux") {
      const [state, ...fields] = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ").at(-1)?.split(" ") ?? [];
      // A zombie has terminated, and in a container it may never be reaped.
      return state === "Z" || state === "X" ? undefined : `${pid}:${fields[18]}`;
    }
    process.kill(pid, 0);
    return String(pid);
  } catch (error) {
    return codeOf(error) === "EPERM" ? String(pid) : undefined; // alive, but owned by another user
  }
}

/** The identity of this process. */
export const ownIdentity = (): string => identify(process.pid) ?? String(process.pid);

/** A text unique to this process and call, even if its pid is reused. */
export const newMark = (): string => `${ownIdentity()} ${randomUUID()}`;

/** Whether the process that has this identity, or wrote this mark, is alive. */
export function isAlive(mark: string): boolean {
  return mark.split(" ")[0] === identify(Number.parseInt(mark));
}
