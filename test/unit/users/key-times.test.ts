import fc from "fast-check";
import { AHEAD_SECONDS, isOld, LIFE_SECONDS, expiredKeys, signer } from "../../../services/users/key-times";

const TTL = 900;
const ages = (...seconds: number[]) => seconds.map((age_seconds) => ({ age_seconds }));

it.each([
  ["none", [], true],
  ["one of today", [5], false],
  ["one of a month ago", [LIFE_SECONDS], true],
  ["a new one beside it", [1, LIFE_SECONDS], false],
])("a new key is needed: %s → %s", (_what, seconds, needed) => {
  expect(isOld(ages(...seconds))).toBe(needed);
});

it.each([
  ["the first one, at once", [0], 0],
  ["the old one, while the new one is being published", [AHEAD_SECONDS - 1, 5_000], 1],
  ["the new one from then on", [AHEAD_SECONDS, 5_000], 0],
  ["the oldest, if all are new", [1, 2, 3], 2],
])("signs: %s", (_what, seconds, place) => {
  expect(signer(ages(...seconds))).toBe(place);
});

it("a key is dropped only after the tokens that it signed have expired, and never while it signs", () => {
  const sorted = fc
    .array(fc.integer({ min: 0, max: 4 * LIFE_SECONDS }), { minLength: 1, maxLength: 6 })
    .map((list) => list.sort((a, b) => a - b));
  fc.assert(
    fc.property(sorted, (seconds) => {
      const keys = ages(...seconds);
      const gone = expiredKeys(keys, TTL);
      expect(gone).not.toContain(keys[signer(keys)]);
      for (const key of gone) {
        const next = keys[keys.indexOf(key) - 1]!;
        expect(next.age_seconds - AHEAD_SECONDS).toBeGreaterThan(TTL); // time since this key stopped signing
      }
    }),
  );
});
