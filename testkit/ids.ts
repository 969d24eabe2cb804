/** An id that sorts as its number does, for tests without a database. */
export const testId = (n: number): string => `00000000-0000-7000-8000-${String(n).padStart(12, "0")}`;

/** A UUIDv7 (RFC 9562, 5.7) in lower case, as the shop writes it. */
export const UUID_V7 = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;

/** When a UUIDv7 was made: milliseconds since 1970. */
export const timeOfId = (id: string): number => parseInt(id.slice(0, 13).replace("-", ""), 16);

/** Invalid ids that resemble this one. */
export const misspelled = (id: string): string[] => [
  "",
  "0",
  "-1",
  "1.5",
  "01",
  "abc",
  "9007199254740992",
  id.slice(1),
  `${id}0`,
  id.replaceAll("-", ""),
  `{${id}}`,
  `urn:uuid:${id}`,
  `g${id.slice(1)}`,
  `${id.slice(0, 8)}_${id.slice(9)}`,
  ` ${id}`,
  `${id}\n`,
];
