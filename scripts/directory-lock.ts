import { randomUUID } from "node:crypto";
import { link, readdir, rm, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { codeOf, readIfThere } from "./postgres-binaries";
import { isAlive, newMark } from "./process-identity";

const LOCK_MS = 120_000; // longer than a first start on a slow disk
const LOCK = /^postgres\.lock\.(\d+)$/;

/**
 * Runs `work` while no other start or stop works on the same directory. The lock is the file with the highest number.
 * It is free if it is empty or its writer has terminated. A lock file is never overwritten, only followed by the next
 * number, so two processes that find the same dead holder can't both succeed it.
 */
export async function exclusively<T>(directory: string, work: () => Promise<T>): Promise<T> {
  const lock = await acquire(directory);
  try {
    return await work();
  } finally {
    await truncate(lock);
  }
}

async function acquire(directory: string): Promise<string> {
  const nameOf = (number: number | string): string => join(directory, `postgres.lock.${number}`);
  const numbers = async (): Promise<number[]> => (await readdir(directory)).flatMap((name) => LOCK.exec(name)?.[1] ?? []).map(Number);
  const draft = nameOf(randomUUID());
  const deadline = Date.now() + LOCK_MS;
  for (;;) {
    const last = Math.max(0, ...(await numbers()));
    const holder = readIfThere(nameOf(last));
    if (isAlive(holder)) {
      const pid = Number.parseInt(holder);
      if (Date.now() > deadline) throw new Error(`process ${pid} has been starting or stopping it for two minutes`);
      await sleep(20);
      continue;
    }
    const lock = nameOf(last + 1);
    try {
      await writeFile(draft, newMark());
      await link(draft, lock); // atomic: writing it in place would briefly show others an empty, hence free, lock
    } catch (error) {
      if (codeOf(error) === "EEXIST") continue;
      throw error;
    } finally {
      await rm(draft, { force: true });
    }
    const held = await numbers();
    if (Math.max(...held) === last + 1) {
      for (const number of held) if (number <= last) await rm(nameOf(number), { force: true });
      return lock;
    }
    await rm(lock, { force: true }); // others have taken, freed and removed this number since we looked
  }
}
