/** 1299.99 → 129999. Exact for every amount that passed the `money` format: at most two decimals. */
export const toCents = (amount: number): number => Math.round(amount * 100);

/** 129999 → 1299.99, the double nearest to it, which JSON prints with at most two decimals. */
export const fromCents = (cents: number): number => cents / 100;
