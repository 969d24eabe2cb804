import bcrypt from "bcryptjs";
import { costOf, roundsOf } from "./bcrypt-cost";

/*
 * Runs in a worker thread: one hash takes up to half a second of CPU, which no event loop can spare.
 */

export interface HashTask {
  password: string;
  cost: number;
}

export interface CheckTask {
  password: string;
  /** Undefined for an account that does not exist. */
  hashed: string | undefined;
  /** Work is done for this cost, whatever that of `hashed` is. */
  cost: number;
  /** What to hash where the password is right. */
  next: HashTask | undefined;
}

/** What a task has cost. */
export interface Work {
  rounds: number;
  ms: number;
}

export async function hash({ password, cost }: HashTask): Promise<{ hash: string } & Work> {
  const start = performance.now();
  return { hash: await bcrypt.hash(password, cost), rounds: roundsOf(cost), ms: performance.now() - start };
}

export async function check({ password, hashed, cost, next }: CheckTask): Promise<{ isRight: boolean; hash?: string } & Work> {
  const start = performance.now();
  const isRight = await compare(password, hashed, cost);
  const compared = { isRight, rounds: roundsOf(cost), ms: performance.now() - start };
  return isRight && next ? { ...compared, hash: await bcrypt.hash(next.password, next.cost) } : compared;
}

/**
 * Takes as long for nobody, and for a hash of a lower cost, as for one of `cost`: to the 2^own rounds of a hash those of
 * 2^own, 2^(own+1), … and 2^(cost-1) are added, which makes 2^cost.
 */
async function compare(password: string, hashed: string | undefined, cost: number): Promise<boolean> {
  const own = hashed === undefined ? undefined : costOf(hashed);
  if (hashed === undefined || own === undefined) {
    await bcrypt.hash(password, cost);
    return false;
  }
  const isRight = await bcrypt.compare(password, hashed);
  for (let padding = own; padding < cost; padding++) await bcrypt.hash(password, padding);
  return isRight;
}
