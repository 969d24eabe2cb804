/** Milliseconds after which a client abandons a request. */
export const CLIENT_TIMEOUT_MS = 8_000;

/** When a request was sent and its response received: ms, by the clients' clock. */
export interface Timed {
  sentAt?: number;
  receivedAt?: number;
}

export interface Line {
  product_id: string;
  quantity: number;
}

/** What the clients know about an order: its key, and the first definite response. */
export interface OrderRecord extends Timed {
  key: string;
  client: number;
  items: Line[];
  attempts: number;
  status?: number;
  body?: string;
  id?: string;
  /** when the first attempt was sent */
  at: number;
  cancel?: Timed & { status: number };
  /** belongs to a fault, so the load must not cancel it at random */
  belongsToFault: boolean;
}

export interface Adjustment extends Timed {
  reason: string;
  product_id: string;
  delta: number;
  /** undefined if the adjustment may have been applied */
  status?: number;
}

export interface LoadOptions {
  clients?: number;
  /** how long a client retries a request without a response; short if the shop is meant to fail */
  retryMs?: number;
  /** Whether orders are cancelled, too. A cancel settles its order's outbox rows and so hides a lost event. */
  withCancels?: boolean;
}

export interface LoadResponse extends Required<Timed> {
  status: number;
  body: string;
  /** Identifies the version of the resource. */
  etag: string | null;
}

export interface Credentials {
  email: string;
  password: string;
}

/** Counters for the duration of a fault. */
export class Window {
  accepted = 0;
  repeats = 0;
  /** 5xx responses, and requests without a response */
  failures = 0;
  /** descriptions of the first failures */
  readonly failed: string[] = [];
  silence = 0;
  slowest = 0;
}
