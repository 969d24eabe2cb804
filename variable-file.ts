import { closeSync, openSync, readSync, statSync } from "node:fs";

const LIMIT_BYTES = 65_536;

/**
 * Reads the file that a NAME_FILE variable names, and removes one trailing line ending, which editors and `echo` add.
 * @throws an error with only the reason: neither the contents nor the name of the file, which is the secret itself if NAME and
 *   NAME_FILE were mixed up.
 */
export function readVariableFile(file: string): string {
  const text = decode(readBytes(file)).replace(/\r?\n$/, "");
  if (text.trim() === "") throw new Error("its file is empty");
  return text;
}

function readBytes(file: string): Buffer {
  let fd: number | undefined;
  try {
    // A pipe can be read only once, but a process reads the configuration several times; reading a device may never end.
    if (!statSync(file).isFile()) throw new Error("it does not name a regular file");
    fd = openSync(file, "r");
    const buffer = Buffer.alloc(LIMIT_BYTES + 1);
    let length = 0;
    let read: number;
    do length += read = readSync(fd, buffer, length, buffer.length - length, null);
    while (read > 0 && length < buffer.length);
    if (length > LIMIT_BYTES) throw new Error("its file has more than 64 KiB");
    return buffer.subarray(0, length);
  } catch (error) {
    const code = typeof error === "object" && error !== null && "code" in error ? String(error.code) : undefined;
    throw code === undefined ? error : new Error(`its file can't be read (${code})`); // not as `cause`, which contains the file name
  } finally {
    if (fd !== undefined) closeSync(fd);
  }
}

function decode(bytes: Buffer): string {
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    if (!text.includes("\0")) return text;
  } catch {
    // reported below
  }
  throw new Error("its file is not UTF-8 text");
}
