import { promisify } from "node:util";
import { brotliDecompress, gunzip, inflate } from "node:zlib";
import { problem } from "../../../broker/errors";
import { FairSlots } from "../../../mixins/fair-queue";
import type { Coding } from "./request";

const DECODERS = { gzip: promisify(gunzip), br: promisify(brotliDecompress), deflate: promisify(inflate) };

/**
 * One body is decoded at a time, in rotation among addresses. Brotli's window may have 16 MB (RFC 7932, 9.1), which a body of fifty bytes
 * fills before the decoder returns anything: a hundred of them at once would take 2 GB of memory and every core.
 */
export const decodingSlots = (): FairSlots => new FairSlots({ slots: 1, places: 512 });

/** @throws BODY_TOO_LARGE if the decoded body is larger than `limitBytes`, BAD_REQUEST if it can't be decoded */
export async function decode(body: Buffer, coding: Coding, limitBytes: number): Promise<Buffer> {
  // In one step: otherwise 16 KiB at a time, each of which would wait for a turn of the event loop.
  const options = { maxOutputLength: limitBytes, chunkSize: limitBytes + 1 };
  try {
    return await DECODERS[coding](body, options);
  } catch (error) {
    const code = typeof error === "object" && error !== null && "code" in error ? String(error.code) : "";
    if (code === "ERR_BUFFER_TOO_LARGE") throw problem("BODY_TOO_LARGE", "the body has more than 100 KiB");
    if (/^(Z_|ERR__ERROR_|ERR_BROTLI)/.test(code)) throw problem("BAD_REQUEST", `the body can't be decoded as ${coding}`);
    throw error;
  }
}
