import { readdirSync, writeFileSync } from "node:fs";
import { setPriority } from "node:os";

/** Doubles the weight: each step is a factor of 1.25 (sched(7)), and 1.25³ ≈ 2. */
const TWICE = -3;

/**
 * Gives a process that leads a session twice the CPU weight of others, as docker-compose.yml gives users. Where the kernel schedules by
 * session (autogroup), the weight of the session counts, elsewhere that of each thread; threads started later inherit it.
 * @throws without CAP_SYS_NICE
 */
export function doubleCpuWeight(pid: number): void {
  for (const thread of readdirSync(`/proc/${pid}/task`)) setPriority(Number(thread), TWICE);
  try {
    writeFileSync(`/proc/${pid}/autogroup`, String(TWICE));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error; // a kernel without autogroups
  }
}
