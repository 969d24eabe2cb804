import { Agent, request as open } from "node:http";

/** One request of the public API. */
export interface ApiRequest {
  readonly method: string;
  readonly path: string;
  readonly token?: string | undefined;
  readonly body?: unknown;
}

export interface ApiResponse {
  readonly status: number;
  readonly text: string;
  /** From the first byte sent to the last one read, in ms. */
  readonly took: number;
}

/** Uses one keep-alive connection, so that no handshakes are measured. */
export class Visitor {
  private readonly agent = new Agent({ keepAlive: true, maxSockets: 1 });

  constructor(private readonly url: string) {}

  send({ method, path, token, body }: ApiRequest): Promise<ApiResponse> {
    const text = body === undefined ? undefined : JSON.stringify(body);
    const headers = {
      ...(token !== undefined && { Authorization: `Bearer ${token}` }),
      ...(text !== undefined && { "Content-Type": "application/json", "Content-Length": Buffer.byteLength(text) }),
    };
    return new Promise((resolve, reject) => {
      const since = performance.now();
      const sent = open(this.url + path, { method, headers, agent: this.agent }, (response) => {
        const chunks: Buffer[] = [];
        response.on("data", (chunk: Buffer) => chunks.push(chunk));
        response.on("error", reject);
        response.on("end", () => {
          const took = performance.now() - since;
          resolve({ status: response.statusCode ?? 0, text: Buffer.concat(chunks).toString(), took });
        });
      });
      sent.on("error", reject);
      sent.end(text);
    });
  }

  /** @throws with the response if its status is 400 or above */
  async expect(request: ApiRequest): Promise<ApiResponse> {
    const response = await this.send(request);
    if (response.status >= 400) throw new Error(`${request.method} ${request.path}: ${response.status} ${response.text.slice(0, 300)}`);
    return response;
  }

  async json<T>(request: ApiRequest): Promise<T> {
    return JSON.parse((await this.expect(request)).text) as T; // the caller knows the response's contract
  }

  close(): void {
    this.agent.destroy();
  }
}
