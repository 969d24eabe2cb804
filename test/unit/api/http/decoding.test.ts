import { brotliCompressSync, deflateSync, gzipSync } from "node:zlib";
import { decode, decodingSlots } from "../../../../services/api/http/decoding";

const LIMIT_BYTES = 1_000;
const BODY = Buffer.from("a".repeat(LIMIT_BYTES));

describe.each([
  ["gzip", gzipSync],
  ["br", brotliCompressSync],
  ["deflate", deflateSync],
] as const)("a body in %s", (coding, encode) => {
  it("is decoded up to the limit", async () => {
    expect((await decode(encode(BODY), coding, LIMIT_BYTES)).equals(BODY)).toBe(true);
  });

  it("that is larger is refused", async () => {
    await expect(decode(encode(Buffer.concat([BODY, BODY])), coding, LIMIT_BYTES)).rejects.toMatchObject({ type: "BODY_TOO_LARGE" });
  });

  it("that is cut off is refused", async () => {
    await expect(decode(encode(BODY).subarray(0, -3), coding, LIMIT_BYTES)).rejects.toMatchObject({ type: "BAD_REQUEST" });
  });
});

it("bodies are decoded one at a time, in rotation among addresses", async () => {
  const slots = decodingSlots();
  const done: string[] = [];
  const one = (address: string) =>
    slots.run({ address, user: undefined }, async () => {
      expect(slots.inFlight).toBe(1);
      await decode(gzipSync(BODY), "gzip", LIMIT_BYTES);
      done.push(address);
    });
  await Promise.all(["a", "a", "a", "b"].map(one));
  expect(done).toEqual(["a", "a", "b", "a"]);
});
