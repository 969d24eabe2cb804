import { ERRORS, type ErrorCode } from "../../contracts/errors";

const RESPONSE_MS = 20_000;

interface Request {
  token?: string;
  body?: object;
  headers?: Readonly<Record<string, string>>;
}

export interface Reply {
  headers: Headers;
  /** Parsed if it is JSON; otherwise empty. */
  body: Record<string, any>;
}

/** Requests through Prism, and what is wrong with their responses. */
export class Walk {
  requests = 0;
  readonly violations: string[] = [];

  constructor(private readonly url: string) {}

  /**
   * Sends a request that the document allows. A violation is what Prism reports, and a response that is not the expected one: Prism
   * replaces a response that differs from the document by an error of its own.
   * @param expected the status, or the code of a problem
   */
  async ask(expected: number | ErrorCode, line: string, { token, body, headers }: Request = {}): Promise<Reply> {
    const [method = "", target = ""] = line.split(" ");
    this.requests++;
    const response = await fetch(this.url + target, {
      method,
      headers: {
        ...(token !== undefined && { Authorization: `Bearer ${token}` }),
        ...(body !== undefined && { "Content-Type": "application/json" }),
        ...headers,
      },
      ...(body !== undefined && { body: JSON.stringify(body) }),
      signal: AbortSignal.timeout(RESPONSE_MS),
    });
    const text = await response.text();
    const isJson = /json/.test(response.headers.get("content-type") ?? "") && text !== "";
    const parsed = (isJson ? JSON.parse(text) : {}) as Record<string, any>;
    const reported = response.headers.get("sl-violations");
    if (reported !== null) this.violations.push(`${line}: ${reported}`);
    else if (!isExpected(expected, response.status, parsed))
      this.violations.push(`${line}: ${response.status} instead of ${expected}: ${text}`);
    return { headers: response.headers, body: parsed };
  }
}

const isExpected = (expected: number | ErrorCode, status: number, { code }: Record<string, any>): boolean =>
  typeof expected === "number" ? status === expected : status === ERRORS[expected].status && code === expected;
