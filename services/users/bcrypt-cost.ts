/** The cost of a hash: bcrypt does 2^cost rounds. Undefined where it is no hash of bcrypt. */
export function costOf(hashed: string): number | undefined {
  const [, cost] = /^\$2[aby]\$(\d\d)\$.{53}$/.exec(hashed) ?? [];
  return cost === undefined ? undefined : Number(cost);
}

export const roundsOf = (cost: number): number => 2 ** cost;
