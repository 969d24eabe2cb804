/** Milliseconds after which a client gives a request up. */
export const CLIENT_TIMEOUT_MS = 8_000;

/** When a request left, and when its response came: ms, by the clients' clock. */
export interface Timed {
  sent?: number;
  answered?: number;
}

export interface Line {
  product_id: string;
  quantity: number;
}

/** What the clients know of one order: its key, and the first definite answer to it. */
export interface OrderRecord extends Timed {
  key: string;
  client: number;
  items: Line[];
  attempts: number;
  status?: number;
  body?: string;
  id?: string;
  /** when the first attempt left */
  at: number;
  cancel?: Timed & { status: number };
  /** a fault's own: nobody cancels it by chance */
  spared: boolean;
}

export interface Adjustment extends Timed {
  reason: string;
  product_id: string;
  delta: number;
  /** undefined: may have been applied */
  status?: number;
}

export interface LoadOptions {
  clients?: number;
  /** how long a client repeats what is not answered; nobody waits long for a shop that must fail */
  giveUpMs?: number;
  /** Orders are cancelled, too. A cancel settles its order's outbox rows, and so hides an event that was lost. */
  withCancels?: boolean;
}

export interface Answer extends Required<Timed> {
  status: number;
  body: string;
  /** Names the version of what it shows. */
  etag: string | null;
}

export interface Credentials {
  email: string;
  password: string;
}

/** What happened while a fault was on. */
export class Window {
  accepted = 0;
  repeats = 0;
  /** 5xx answers, and requests that ended without an answer */
  failures = 0;
  /** what the first of them were */
  readonly failed: string[] = [];
  silence = 0;
  slowest = 0;
}
