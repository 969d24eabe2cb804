import { randomBytes } from "node:crypto";

/** A parsed body. Tests read whatever they expect in it, and fail if it isn't there. */
// eslint-disable-next-line @typescript-eslint/no-explicit-any
export type Body = Record<string, any>;

export interface ApiResponse<T = Body> {
  status: number;
  headers: Headers;
  body: T;
}

export interface RequestOptions {
  headers?: Record<string, string>;
  /** A body that is sent unchanged, for bodies that aren't JSON. */
  raw?: string | Buffer;
  token?: string | undefined;
}

/** A client of the public API, which sends the access token of the last login. */
export class Client {
  token: string | undefined;

  constructor(readonly url: string) {}

  async request<T = Body>(
    method: string,
    path: string,
    body?: unknown,
    { headers = {}, raw, token = this.token }: RequestOptions = {},
  ): Promise<ApiResponse<T>> {
    const response = await fetch(this.url + path, {
      method,
      headers: {
        ...((body !== undefined || raw !== undefined) && { "Content-Type": "application/json" }),
        ...(token !== undefined && { Authorization: `Bearer ${token}` }),
        ...headers,
      },
      ...(raw !== undefined ? { body: raw } : body !== undefined && { body: JSON.stringify(body) }),
    });
    const text = await response.text();
    return { status: response.status, headers: response.headers, body: (text === "" ? {} : JSON.parse(text)) as T };
  }

  get = <T = Body>(path: string, options?: RequestOptions) => this.request<T>("GET", path, undefined, options);
  post = <T = Body>(path: string, body?: unknown, options?: RequestOptions) => this.request<T>("POST", path, body, options);
  patch = <T = Body>(path: string, body?: unknown, options?: RequestOptions) => this.request<T>("PATCH", path, body, options);
  delete = <T = Body>(path: string, options?: RequestOptions) => this.request<T>("DELETE", path, undefined, options);

  /** Logs in; later requests send the token. */
  async login(email: string, password: string): Promise<this> {
    const { status, body } = await this.post("/token", { email, password });
    if (status !== 200) throw new Error(`login failed: ${status} ${JSON.stringify(body)}`);
    this.token = String(body["access_token"]);
    return this;
  }

  /** Registers a new user and logs in. @returns the user's id */
  async signUp(): Promise<string> {
    const credentials = { email: `${randomBytes(8).toString("hex")}@shop.test`, password: "correct horse battery" };
    const { status, body } = await this.post("/register", credentials);
    if (status !== 201) throw new Error(`registration failed: ${status} ${JSON.stringify(body)}`);
    await this.login(credentials.email, credentials.password);
    return String(body["id"]);
  }

  async createProduct(product: Record<string, unknown> = {}): Promise<string> {
    const { status, body } = await this.post("/products", { name: "Lamp", price: 19.99, quantity: 50, ...product });
    if (status !== 201) throw new Error(`creating a product failed: ${status} ${JSON.stringify(body)}`);
    return String(body["id"]);
  }

  order = (productId: string, quantity: number, options?: RequestOptions) =>
    this.post("/orders", { items: [{ product_id: productId, quantity }] }, options);

  /** Orders as a careful client does: with an Idempotency-Key, and retries while the shop is unavailable. */
  async buy(productId: string, quantity: number): Promise<ApiResponse> {
    const headers = { "Idempotency-Key": randomBytes(8).toString("hex") };
    for (let tries = 1; ; tries++) {
      const response = await this.order(productId, quantity, { headers });
      if (response.status !== 503 || tries === 20) return response;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }

  quantityOf = async (productId: string): Promise<number> => Number((await this.get(`/products/${productId}`)).body["quantity"]);

  /** Waits until the order is no longer pending. @returns the order */
  async decided(orderId: string, ms = 20_000): Promise<Body> {
    for (const deadline = Date.now() + ms; ;) {
      const { body } = await this.get(`/orders/${orderId}`);
      if (body["status"] !== "PENDING") return body;
      if (Date.now() > deadline) throw new Error(`order ${orderId} is still pending after ${ms} ms`);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
}
