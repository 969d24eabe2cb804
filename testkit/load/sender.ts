import { Agent, fetch as fetchFrom, type Response } from "undici";
import type { Recorder } from "../history/recorder";
import { BALANCER } from "../system/balancer";
import type { Shop } from "../system/system";
import type { LoadResponse } from "./records";

/** Requests come from several addresses in turn, like those of many users. */
const AGENTS = [2, 3, 4, 5].map((n) => new Agent({ connect: { localAddress: `127.0.0.${n}` } }));

export interface LoadRequest {
  method: string;
  path: string;
  body?: unknown;
  token?: string | undefined;
  /** Names in lower case. */
  headers?: Readonly<Record<string, string>>;
}

/** Sends requests to a shop and records them. */
export class Sender {
  private requests = 0;

  constructor(
    private readonly shop: Shop,
    private readonly history: Recorder,
    /** Gets responses that must not occur. */
    private readonly violations: string[],
  ) {}

  /** @returns status 0 if there was no response, or only the balancer's */
  async send(request: LoadRequest, timeoutMs: number): Promise<LoadResponse> {
    const [sentAt, begin] = [Date.now(), performance.now()];
    const response = await this.exchange(request, timeoutMs);
    const [receivedAt, end] = [Date.now(), performance.now()];
    const isOfShop = response?.headers.has(BALANCER) === false;
    this.history.record({ ...request, begin, end, response: isOfShop ? response : undefined });
    if (response === undefined) return { status: 0, body: "", etag: null, sentAt, receivedAt };
    const { status, headers, text: body } = response;
    const { method, path } = request;
    if (status === 500) this.violations.push(`${method} ${path} responded with 500: ${body}`);
    if (status === 503 && !headers.has("retry-after")) this.violations.push(`a 503 without Retry-After: ${body}`);
    return { status: isOfShop ? status : 0, body, etag: headers.get("etag"), sentAt, receivedAt };
  }

  private async exchange(
    request: LoadRequest,
    timeoutMs: number,
  ): Promise<(Pick<Response, "status" | "headers"> & { text: string }) | undefined> {
    try {
      const response = await this.open(request, AbortSignal.timeout(timeoutMs));
      return { status: response.status, headers: response.headers, text: await response.text() };
    } catch {
      return undefined; // no response, or an incomplete one
    }
  }

  /** @returns the response with its body unread */
  open({ method, path, body, token, headers }: LoadRequest, signal: AbortSignal): Promise<Response> {
    const dispatcher = AGENTS[this.requests++ % AGENTS.length];
    return fetchFrom(this.shop.url + path, {
      ...(dispatcher && { dispatcher }),
      method,
      headers: {
        ...(body !== undefined && { "Content-Type": "application/json" }),
        ...(token !== undefined && { Authorization: `Bearer ${token}` }),
        ...headers,
      },
      ...(body !== undefined && { body: JSON.stringify(body) }),
      signal,
    });
  }
}
