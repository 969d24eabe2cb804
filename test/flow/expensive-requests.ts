import { connect } from "node:net";
import { brotliCompressSync, constants, deflateSync, gzipSync } from "node:zlib";

/** Maximum size of a body in bytes, both before and after decoding. */
export const BODY_LIMIT = 100 * 1024;
/** Size of a request head in bytes, slightly below Node's limit. */
const HEAD_LIMIT = 15_500;

export interface Shape {
  name: string;
  type: string;
  body: Buffer;
  /** Whether it is the same for every route. */
  isWhole: boolean;
}

/** Puts the part between head and tail as often as the limit allows, separated by commas. */
function fill(head: string, part: string | ((i: number) => string), tail: string, limit = BODY_LIMIT): string {
  const parts: string[] = [];
  let rest = limit - Buffer.byteLength(head) - Buffer.byteLength(tail);
  for (let i = 0; ; i++) {
    const next = (i > 0 ? "," : "") + (typeof part === "string" ? part : part(i));
    if ((rest -= Buffer.byteLength(next)) < 0) return head + parts.join("") + tail;
    parts.push(next);
  }
}
const long = (head: string, part: string, tail: string, limit = BODY_LIMIT): string =>
  head + part.repeat(Math.floor((limit - Buffer.byteLength(head) - Buffer.byteLength(tail)) / Buffer.byteLength(part))) + tail;
const deep = (open: string, inside: string, close: string): string => {
  const times = Math.floor((BODY_LIMIT - inside.length) / (open.length + close.length));
  return open.repeat(times) + inside + close.repeat(times);
};

/** Normalization sorts the marks of a letter: each of the second half goes before all of the first. */
const MARKS = "\u0301".repeat(BODY_LIMIT / 4 - 50) + "\u0323".repeat(BODY_LIMIT / 4 - 50);

/** Values of one field, each as large as the limit allows. */
const VALUES: Record<string, (head: string, tail: string) => string> = {
  "empty objects": (head, tail) => fill(`${head}[`, "{}", `]${tail}`),
  "empty arrays": (head, tail) => fill(`${head}[`, "[]", `]${tail}`),
  numbers: (head, tail) => fill(`${head}[`, "1", `]${tail}`),
  "objects of one field": (head, tail) => fill(`${head}[`, '{"a":1}', `]${tail}`),
  "100 objects of many fields": (head, tail) => fill(`${head}[`, () => fill("{", (i) => `"${i.toString(36)}":0`, "}", 1_000), `]${tail}`),
  "many fields": (head, tail) => fill(`${head}{`, (i) => `"${i.toString(36)}":0`, `}${tail}`),
  digits: (head, tail) => long(head, "7", tail),
  "a small fraction": (head, tail) => long(`${head}0.`, "0", `1${tail}`),
  letters: (head, tail) => long(`${head}"`, "a", `"${tail}`),
  "wide letters": (head, tail) => long(`${head}"`, "漢", `"${tail}`),
  escapes: (head, tail) => long(`${head}"`, "\\u0001", `"${tail}`),
  "half characters": (head, tail) => long(`${head}"`, "\\ud83d", `"${tail}`),
  "dots and signs": (head, tail) => long(`${head}"`, "a@a.", `"${tail}`),
  spaces: (head, tail) => long(`${head}"`, " ", `"${tail}`),
  "combining marks out of order": (head, tail) => `${head}"a${MARKS}"${tail}`,
};

const WHOLE: Record<string, string> = {
  "empty objects": fill("[", "{}", "]"),
  "many fields": fill("{", (i) => `"${i.toString(36)}":0`, "}"),
  "numbered fields": fill("{", (i) => `"${i * 7}":0`, "}"),
  "one field repeated": fill("{", '"a":0', "}"),
  "long names": fill("{", (i) => `"${i}${"n".repeat(1_000)}":0`, "}"),
  "one long name": long('{"', "n", '":0}'),
  "names of escapes": fill("{", (i) => `"\\u0001\\ud800${i}":0`, "}"),
  __proto__: deep('{"__proto__":', "1", "}"),
  "deep arrays": deep("[", "", "]"),
  "deep objects": deep('{"a":', "1", "}"),
  "arrays without an end": "[".repeat(BODY_LIMIT),
  digits: "7".repeat(BODY_LIMIT),
  spaces: long("", " ", "{}"),
  "nothing but spaces": " ".repeat(BODY_LIMIT),
  "a mistake at the end": fill("[", "{}", "}"),
  "bytes that are no UTF-8": "\xff".repeat(BODY_LIMIT / 2),
};

const FORMS: Record<string, string> = {
  "one parameter repeated": long("a=1", "&a=1", ""),
  "many parameters": fill("", (i) => `&${i.toString(36)}=`, ""),
  "1,000 parameters": Array.from({ length: 1_000 }, (_, i) => `${i}=${"v".repeat(95)}`).join("&"),
  "nested brackets": long("a", "[a]", "=1"),
  percents: long("username=", "%e6%bc%a2", ""),
  "percents of combining marks": `grant_type=password&password=p&username=a${"%cc%81".repeat(8_000)}${"%cc%a3".repeat(8_000)}`,
  "percents that mean nothing": long("username=", "%", ""),
  plus: long("username=", "+", ""),
  ampersands: "&".repeat(BODY_LIMIT),
};

/** The largest bodies of every shape, for a route whose contract has these fields. */
export function bodies(fields: readonly string[]): Shape[] {
  const json = (name: string, text: string, isWhole = false): Shape => ({
    name,
    type: "application/json",
    body: Buffer.from(text),
    isWhole,
  });
  return [
    ...Object.entries(WHOLE).map(([name, text]) => json(name, text, true)),
    ...fields.flatMap((field) => Object.entries(VALUES).map(([name, of]) => json(`${field} of ${name}`, of(`{"${field}":`, "}")))),
    ...Object.entries(FORMS).map(([name, text]) => ({
      name: `a form of ${name}`,
      type: "application/x-www-form-urlencoded",
      body: Buffer.from(text),
      isWhole: false,
    })),
  ];
}

/** Encoders of bodies; below, small encoded bodies that become large when decoded. */
export const ENCODE: Record<string, (body: Buffer) => Buffer> = {
  gzip: (body) => gzipSync(body),
  br: (body) => brotliCompressSync(body, { params: { [constants.BROTLI_PARAM_QUALITY]: 4 } }),
  deflate: (body) => deflateSync(body),
};
const zeros = Buffer.alloc(100 * 1024 * 1024);
export const BOMBS: Record<string, () => Buffer> = {
  gzip: () => gzipSync(zeros),
  br: () => ENCODE["br"]!(zeros),
  deflate: () => deflateSync(zeros),
};
/** 5,000 empty gzip members, concatenated. */
export const EMPTY_MEMBERS = Buffer.concat(Array.from({ length: 5_000 }, () => gzipSync("")));

const list = (part: (i: number) => string, separator: string): string => fill("", part, "", HEAD_LIMIT).replaceAll(",", separator);

/** Header fields that the gateway reads, as long as possible. */
export const HEADERS: readonly (readonly [string, string])[] = [
  ["If-Match", list((i) => `"${i}"`, ", ")],
  ["If-Match", long('"', "7", '"', HEAD_LIMIT)],
  ["If-None-Match", list((i) => `W/"${i}"`, ",")],
  ["If-None-Match", '"'.repeat(HEAD_LIMIT)],
  ["If-None-Match", "W/".repeat(HEAD_LIMIT / 2)],
  ["Idempotency-Key", "k".repeat(HEAD_LIMIT)],
  ["X-Forwarded-For", list((i) => `10.0.${i >> 8}.${i & 255}`, ", ")],
  ["X-Forwarded-For", list(() => "127.0.0.1", ",")],
  ["X-Forwarded-For", list(() => "::1", ",")],
  ["X-Forwarded-For", ",".repeat(HEAD_LIMIT)],
  ["X-Forwarded-For", "1".repeat(HEAD_LIMIT)],
  ["X-Forwarded-For", `[${":".repeat(HEAD_LIMIT)}]`],
  ["X-Request-Id", "r".repeat(HEAD_LIMIT)],
  ["Last-Event-ID", "9".repeat(HEAD_LIMIT)],
  ["Authorization", `Bearer ${"a".repeat(HEAD_LIMIT)}`],
  ["Authorization", `Bearer ${" ".repeat(HEAD_LIMIT)}!`],
  ["Authorization", `Bearer a${"=".repeat(HEAD_LIMIT)}!`],
  ["Authorization", `Bearer ${Buffer.from(`{"alg":"RS256","kid":"${"k".repeat(11_000)}"}`).toString("base64url")}.a.a`],
  ["Authorization", `Bearer ${Buffer.from("[".repeat(11_000)).toString("base64url")}.a.a`],
  ["Authorization", `Bearer ${".".repeat(HEAD_LIMIT)}`],
  ["Content-Type", `application/${"a".repeat(HEAD_LIMIT)}`],
  ["Content-Type", `application/json${list((i) => `; p${i}=1`, "")}`],
  ["Content-Type", `application/json; charset="${"\\a".repeat(HEAD_LIMIT / 2)}"`],
  ["Content-Encoding", list(() => "gzip", ", ")],
  ["Origin", `https://${"o".repeat(HEAD_LIMIT)}`],
  ["Cookie", list((i) => `c${i}=1`, "; ")],
  ["Expect", "e".repeat(HEAD_LIMIT)],
  ["Accept", list((i) => `a/${i};q=0.1`, ",")],
  ["X-Many", list(() => "", "\r\nX-Many: ").slice(0, HEAD_LIMIT)],
];

/** Queries, as long as possible. */
export const queriesFor = (names: readonly string[]): string[] => [
  list((i) => `${i.toString(36)}=`, "&"),
  list(() => "a=1", "&"),
  long("a", "[a]", "=1", HEAD_LIMIT),
  long("a=", "%e6%bc%a2", "", HEAD_LIMIT),
  long("a=", "%", "", HEAD_LIMIT),
  long("", "%ff&", "", HEAD_LIMIT),
  long("", "%f0%9f%ff=1&", "", HEAD_LIMIT),
  long("", "?", "", HEAD_LIMIT),
  long("", "'", "=", HEAD_LIMIT),
  ...names.flatMap((name) => [
    list(() => `${name}=1`, "&"),
    `${name}=${"a".repeat(HEAD_LIMIT)}`,
    `${name}=${"9".repeat(HEAD_LIMIT)}`,
    `${name}=${Buffer.from("[".repeat(3_000)).toString("base64url")}`,
    `${name}=${Buffer.from(`["products:created_at"${",1".repeat(1_500)}]`).toString("base64url")}`,
    long(`${name}=`, "%25_", "", 4_000),
    long(`${name}=`, "pending,", "parked", HEAD_LIMIT),
  ]),
];

/** Path segments to put in place of an id. */
export const SEGMENTS = [
  "9".repeat(HEAD_LIMIT),
  "%39".repeat(HEAD_LIMIT / 3),
  "%e6%bc%a2".repeat(HEAD_LIMIT / 9),
  "%".repeat(HEAD_LIMIT),
  "1/".repeat(HEAD_LIMIT / 2),
  "/".repeat(HEAD_LIMIT),
  "..%2f".repeat(HEAD_LIMIT / 5),
];

/** Encodes a body in chunks of one byte (RFC 9112, 7.1). */
export const oneByOne = (body: Buffer): Buffer => Buffer.concat([...body].map((byte) => Buffer.from([0x31, 13, 10, byte, 13, 10])));

export interface Exchange {
  status: number;
  /** milliseconds of CPU time of this thread, which includes the client's */
  cpuMs: number;
  /** the response, up to about 2,000 characters */
  text: string;
}

export const threadCpu = (): number => {
  const { user, system } = process.threadCpuUsage();
  return (user + system) / 1_000;
};

/** Sends bytes over a new connection and waits for the whole response; for a stream, only for its head. */
export async function exchange(url: string, request: readonly Buffer[]): Promise<Exchange> {
  const { hostname, port } = new URL(url);
  await new Promise(setImmediate); // let earlier work finish
  const since = threadCpu();
  const text = await new Promise<string>((resolve, reject) => {
    let response = "";
    const socket = connect(Number(port), hostname, () => {
      for (const part of request) socket.write(part);
    });
    socket.setEncoding("latin1").on("data", (chunk: string) => {
      if (response.length < 2_000) response += chunk;
      if (response.includes("text/event-stream")) socket.destroy();
    });
    socket.on("error", reject);
    socket.on("close", () => {
      resolve(response);
    });
  });
  return { status: Number(text.slice(9, 12)), cpuMs: threadCpu() - since, text };
}
