import { readdirSync, writeFileSync } from "node:fs";
import { setPriority } from "node:os";

/**
 * Sets the CPU weight of a process that leads a session, as a nice value: each step is a factor of 1.25 (sched(7)). Where the kernel
 * schedules by session (autogroup), a thread's own nice value has no effect on other sessions: the session's counts. Elsewhere that of each
 * thread counts; threads started later inherit it.
 * @throws if the value is negative, without CAP_SYS_NICE
 */
export function setCpuWeight(pid: number, nice: number): void {
  for (const thread of readdirSync(`/proc/${pid}/task`)) setPriority(Number(thread), nice);
  try {
    writeFileSync(`/proc/${pid}/autogroup`, String(nice));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error; // a kernel without autogroups
  }
}
