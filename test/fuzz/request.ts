import { brotliCompressSync, deflateSync, gzipSync } from "node:zlib";
import type { Fixture, Person } from "./fixture";

export type Coding = "gzip" | "br" | "deflate";

/** A body: JSON, a form, or raw bytes. */
export interface Body {
  json?: unknown;
  form?: [string, string][];
  raw?: Buffer;
  coding?: Coding;
  /** Sent in chunks without Content-Length. */
  chunked?: boolean;
  /** Number of bytes cut off at its end. */
  cut?: number;
}

export interface FuzzRequest {
  n: number;
  /** The operation, such as `POST /orders/{id}/cancel`; "" if it isn't documented. */
  line: string;
  method: string;
  path: string;
  query: [string, string][];
  headers: [string, string][];
  who: Person;
  /** Replaces the token of `who`. */
  authorization?: string;
  hasHost: boolean;
  body?: Body;
  /** Names of the deliberate faults. */
  faults: string[];
  /** The allowed statuses, if the fault must be refused. */
  refusals?: number[];
}

export interface EncodedRequest {
  method: string;
  target: string;
  headers: [string, string][];
  body: Buffer | undefined;
  chunked: boolean;
  hasHost: boolean;
}

const ENCODE: Readonly<Record<Coding, (body: Buffer) => Buffer>> = { gzip: gzipSync, br: brotliCompressSync, deflate: deflateSync };

const FORM = "application/x-www-form-urlencoded";

/** The Content-Type that a request is sent with, or would be with a body. */
function typeOf({ headers, body }: FuzzRequest): string {
  const given = headers.find(([name]) => name.toLowerCase() === "content-type")?.[1];
  return given ?? (body?.form === undefined ? "application/json" : FORM);
}

export const isForm = (request: FuzzRequest): boolean => typeOf(request).startsWith(FORM);

export const isGiven = (headers: readonly (readonly [string, string])[], name: string): boolean =>
  headers.some(([given]) => given.toLowerCase() === name);

/** The request in the form in which it is sent. */
export function encode(request: FuzzRequest, fixture: Fixture): EncodedRequest {
  const { method, path, query, body, hasHost, who, authorization } = request;
  const headers = [...request.headers];
  const token = fixture.tokenOf(who);
  const credentials = authorization ?? (token === undefined ? undefined : `Bearer ${token}`);
  if (credentials !== undefined && credentials !== "") headers.push(["Authorization", credentials]);
  let bytes: Buffer | undefined;
  if (body !== undefined) {
    bytes =
      body.raw ?? Buffer.from(body.form === undefined ? JSON.stringify(body.json ?? null) : new URLSearchParams(body.form).toString());
    if (!isGiven(headers, "content-type")) headers.push(["Content-Type", typeOf(request)]);
    if (body.coding !== undefined) {
      bytes = ENCODE[body.coding](bytes);
      if (!isGiven(headers, "content-encoding")) headers.push(["Content-Encoding", body.coding]);
    }
    if (body.cut !== undefined) bytes = bytes.subarray(0, Math.max(0, bytes.length - body.cut));
  }
  const search = query.map(([name, value]) => `${name}=${value}`).join("&");
  return { method, target: search === "" ? path : `${path}?${search}`, headers, body: bytes, chunked: body?.chunked ?? false, hasHost };
}

const quoted = (text: string): string => `'${text.replaceAll("'", "'\\''")}'`;
const isPrintable = (bytes: Buffer): boolean => /^[\x20-\x7e]*$/.test(bytes.toString("latin1"));

/** The equivalent curl command, as far as curl can send it. */
export function curl(url: string, { method, target, headers, body, chunked, hasHost }: EncodedRequest): string {
  const all = [...headers, ...(hasHost ? [] : [["Host", ""]]), ...(chunked ? [["Transfer-Encoding", "chunked"]] : [])];
  const words = [
    "curl -sS -i --path-as-is",
    method === "HEAD" ? "-I" : `-X ${method}`,
    ...all.map(([name = "", value = ""]) => `-H ${quoted(value === "" ? `${name};` : `${name}: ${value}`)}`.replace("'Host;'", "Host:")),
  ];
  if (body === undefined) return [...words, quoted(url + target)].join(" ");
  if (body.length < 5_000 && isPrintable(body))
    return [...words, `--data-binary ${quoted(body.toString())}`, quoted(url + target)].join(" ");
  const text = body.toString("base64");
  return `echo ${text.length > 20_000 ? `${text.slice(0, 20_000)}…` : text} | base64 -d | ${[...words, "--data-binary @-", quoted(url + target)].join(" ")}`;
}
