/** The cost of a bcrypt hash, which takes 2^cost rounds; undefined if it is not a bcrypt hash. */
export function costOf(hashed: string): number | undefined {
  const [, cost] = /^\$2[aby]\$(\d\d)\$.{53}$/.exec(hashed) ?? [];
  return cost === undefined ? undefined : Number(cost);
}

export const roundsOf = (cost: number): number => 2 ** cost;
