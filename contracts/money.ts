/** 1299.99 → 129999. Exact for every amount in the `money` format, which allows at most two decimals. */
export const toCents = (amount: number): number => Math.round(amount * 100);

/** 129999 → 1299.99, as the nearest double, which JSON prints with at most two decimals. */
export const fromCents = (cents: number): number => cents / 100;
