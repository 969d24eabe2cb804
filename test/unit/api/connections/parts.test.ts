import { IncomingMessage } from "node:http";
import { Socket } from "node:net";
import { mergeParts } from "../../../../services/api/connections/parts";

/** What a reader of the body receives, if it arrives in these pieces. */
async function received(headers: Record<string, string>, pieces: readonly Buffer[]): Promise<Buffer[]> {
  const req = new IncomingMessage(new Socket());
  Object.assign(req.headers, headers);
  mergeParts(req);
  for (const piece of pieces) req.push(piece);
  req.push(null);
  const blocks: Buffer[] = [];
  for await (const block of req) blocks.push(block as Buffer);
  return blocks;
}

const bytes = (size: number): Buffer => Buffer.from(Array.from({ length: size }, (_, index) => index % 251));
const inPieces = (body: Buffer, size: number): Buffer[] =>
  Array.from({ length: Math.ceil(body.length / size) }, (_, index) => body.subarray(index * size, (index + 1) * size));

describe("a body that arrives in pieces", () => {
  const chunked = { "transfer-encoding": "chunked" };

  it.each([
    ["chunks of one byte", chunked, 4_000, 1],
    ["packets of one byte", { "content-length": "4000" }, 4_000, 1],
    ["chunks of 100 bytes", chunked, 100_000, 100],
    ["chunks that no two fit a block", chunked, 100_000, 3_000],
    ["chunks larger than a block", chunked, 100_000, 10_000],
  ])("%s: its reader gets the same bytes, in few blocks", async (_, headers, size, pieceSize) => {
    const body = bytes(size);
    const blocks = await received(headers, inPieces(body, pieceSize));
    expect(Buffer.concat(blocks).equals(body)).toBe(true);
    expect(blocks.length).toBeLessThanOrEqual(Math.ceil(size / 2_048));
  });

  it("of different sizes: its reader gets the same bytes in the same order", async () => {
    const body = bytes(60_000);
    const pieces: Buffer[] = [];
    for (let at = 0, size = 1; at < body.length; at += size, size = (size * 7 + 3) % 5_003) pieces.push(body.subarray(at, at + size));
    expect(Buffer.concat(await received(chunked, pieces)).equals(body)).toBe(true);
  });
});
