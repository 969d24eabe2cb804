import bcrypt from "bcryptjs";
import { costOf, roundsOf } from "./bcrypt-cost";

/*
 * Runs in a worker thread: one hash takes up to half a second of CPU time, which would block the event loop.
 */

export interface HashTask {
  password: string;
  cost: number;
}

export interface CheckTask {
  password: string;
  /** Undefined for an account that does not exist. */
  hashed: string | undefined;
  /** The cost that the check takes, whatever the cost of `hashed`. */
  cost: number;
  /** What to hash if the password is correct. */
  next: HashTask | undefined;
}

/** The cost of a task. */
export interface Work {
  rounds: number;
  ms: number;
}

export async function hash({ password, cost }: HashTask): Promise<{ hash: string } & Work> {
  const start = performance.now();
  return { hash: await bcrypt.hash(password, cost), rounds: roundsOf(cost), ms: performance.now() - start };
}

export async function check({ password, hashed, cost, next }: CheckTask): Promise<{ isCorrect: boolean; hash?: string } & Work> {
  const start = performance.now();
  const isCorrect = await compare(password, hashed, cost);
  const compared = { isCorrect, rounds: roundsOf(cost), ms: performance.now() - start };
  return isCorrect && next ? { ...compared, hash: await bcrypt.hash(next.password, next.cost) } : compared;
}

/**
 * Takes as long for an unknown account, and for a hash of a lower cost, as for one of `cost`: the hash takes 2^own rounds, and the padding
 * adds 2^own, 2^(own+1), … and 2^(cost-1) rounds, 2^cost in total.
 */
async function compare(password: string, hashed: string | undefined, cost: number): Promise<boolean> {
  const own = hashed === undefined ? undefined : costOf(hashed);
  if (hashed === undefined || own === undefined) {
    await bcrypt.hash(password, cost);
    return false;
  }
  const isCorrect = await bcrypt.compare(password, hashed);
  for (let padding = own; padding < cost; padding++) await bcrypt.hash(password, padding);
  return isCorrect;
}
