/*
 * Decides when a signing key is created, signs, and is deleted. Pure: keys are sorted, the newest first.
 */

/** Seconds that a key is published before it signs: twice as long as verifiers may cache the key set. */
export const AHEAD_SECONDS = 600;
/** Seconds until a key is succeeded: a month. */
export const LIFE_SECONDS = 30 * 86_400;
/** Seconds of margin for clock differences and late commits. */
const MARGIN_SECONDS = 60;

interface Aged {
  readonly age_seconds: number;
}

/** Whether a new key is needed. */
export const isOld = ([newest]: readonly Aged[]): boolean => newest === undefined || newest.age_seconds >= LIFE_SECONDS;

/** The index of the key that signs: the newest one that is old enough, or else the oldest. */
export function signer(keys: readonly Aged[]): number {
  const first = keys.findIndex(({ age_seconds }) => age_seconds >= AHEAD_SECONDS);
  return first === -1 ? keys.length - 1 : first;
}

/** The keys whose last token has expired: their successor has been signing for longer than a token's lifetime. */
export const expiredKeys = <K extends Aged>(keys: readonly K[], ttlSeconds: number): K[] =>
  keys.filter((_key, i) => (keys[i - 1]?.age_seconds ?? 0) > AHEAD_SECONDS + ttlSeconds + MARGIN_SECONDS);
