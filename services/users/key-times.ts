/*
 * When a signing key is made, signs, and is forgotten. Pure: ages in seconds, newest key first.
 */

/** A key is told before it signs, for twice as long as its verifiers may remember what they were told. */
export const AHEAD = 600;
/** A key signs for a month. */
export const LIFE = 30 * 86_400;
/** Clocks may differ, and a commit may come late. */
const LEEWAY = 60;

interface Aged {
  readonly age: number;
}

/** Whether a new key is needed. */
export const isOld = ([newest]: readonly Aged[]): boolean => newest === undefined || newest.age >= LIFE;

/** The place of the key that signs: the newest one that is old enough, or the oldest there is. */
export function signer(keys: readonly Aged[]): number {
  const first = keys.findIndex(({ age }) => age >= AHEAD);
  return first === -1 ? keys.length - 1 : first;
}

/** The keys whose last token has expired: the next one has been signing for longer than a token lives. */
export const outlived = <K extends Aged>(keys: readonly K[], ttl: number): K[] =>
  keys.filter((_key, i) => (keys[i - 1]?.age ?? 0) > AHEAD + ttl + LEEWAY);
