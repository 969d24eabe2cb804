import { Type, type Static, type TSchema } from "@sinclair/typebox";
import { matches } from "../../broker/validator";
import { nullable } from "../../contracts/contract";
import { Status } from "../../contracts/orders";
import type { Operation, OrderSeen, Outcome, ProductSeen } from "./operation";

/** One request, and its response where there was one, as the client had them. */
export interface Exchange {
  method: string;
  /** With its query. */
  path: string;
  body?: unknown;
  /** Of the request, in lower case. */
  headers?: Readonly<Record<string, string>>;
  /** The access token that it carried. */
  token?: string | undefined;
  gateway?: string;
  /** By `performance.now()`: before it is sent, and after the response has been read to its end. */
  begin: number;
  end: number;
  response?: { status: number; headers: { get(name: string): string | null }; text: string } | undefined;
}

/** The operations of a history that is larger than this are not kept, and it is not checked any more. */
const MOST_OPERATIONS = 300_000;

/** The calls that one process makes, as they end. */
export class Recorder {
  private all: Operation[] = [];
  private isFull = false;

  /** @param most operations that are kept */
  constructor(private readonly most = MOST_OPERATIONS) {}

  add(operation: Operation): void {
    if (this.all.length < this.most) this.all.push(operation);
    else this.isFull = true;
  }

  /** Records what a history says of this request, if anything. */
  record(exchange: Exchange): void {
    const operation = operationOf(exchange);
    if (operation !== undefined) this.add(operation);
  }

  /** The whole history so far; undefined where it has become too large to be kept. */
  get operations(): readonly Operation[] | undefined {
    return this.isFull ? undefined : this.all;
  }

  /** Begins anew: what was before is neither kept nor checked any more. */
  restart(): void {
    this.all = [];
    this.isFull = false;
  }
}

const Version = Type.Integer({ minimum: 1 });
const NewProduct = Type.Object({ quantity: Type.Integer(), price: Type.Number() });
const NewPrice = Type.Object({ price: Type.Number() });
const Adjustment = Type.Object({ delta: Type.Integer() });
const Line = Type.Object({ product_id: Type.String(), quantity: Type.Integer() });
const NewOrder = Type.Object({ items: Type.Array(Line) });
const Product = Type.Object({ id: Type.String(), quantity: Type.Integer(), price: Type.Number() });
const Order = Type.Object({
  id: Type.String(),
  status: Status,
  total_price: Type.Number(),
  reason: nullable(Type.String()),
  history: Type.Array(Type.Object({ status: Status })),
  created_at: Type.String(),
});
const Problem = Type.Object({ code: Type.String() });
const Claims = Type.Object({ sub: Type.String(), role: Type.Optional(Type.String()) });

/**
 * What a history says of a request; undefined of one that it has nothing to say of. Walks and streams are recorded by whoever makes them.
 * @throws where a success can't be read
 */
export function operationOf(exchange: Exchange): Operation | undefined {
  const { method, path, body, headers = {}, response } = exchange;
  if (response?.status === 304) return undefined;
  const [resource = "", id = "", action = ""] = path.slice(1).split("?")[0]?.split("/") ?? [];
  const call = callOf(exchange);
  switch (`${method} ${resource}${id && "/:id"}${action && `/${action}`}`) {
    case "POST products": {
      const { quantity, price } = read(NewProduct, body);
      return { kind: "product.create", ...call, quantity, price, ...ifOk(exchange, productOf) };
    }
    case "GET products/:id":
      return { kind: "product.read", ...call, product: id, ...ifOk(exchange, productOf) };
    case "PATCH products/:id": {
      const version = versionOf(headers["if-match"]);
      const { price } = read(NewPrice, body);
      return {
        kind: "product.patch",
        ...call,
        product: id,
        price,
        ...(version !== undefined && { if_match: version }),
        ...ifOk(exchange, productOf),
      };
    }
    case "POST products/:id/stock":
      return { kind: "product.adjust", ...call, product: id, delta: read(Adjustment, body).delta, ...ifOk(exchange, productOf) };
    case "POST orders": {
      const key = headers["idempotency-key"];
      return {
        kind: "order.place",
        ...call,
        ...(key !== undefined && { key }),
        lines: read(NewOrder, body).items.map(({ product_id, quantity }) => ({ product_id, quantity })),
        ...ifOk(exchange, orderOf),
        ...(call.outcome === "ok" && response !== undefined && { digest: response.text }),
        ...(response?.headers.get("idempotent-replayed") === "true" && { replayed: true }),
      };
    }
    case "GET orders/:id":
      return { kind: "order.read", ...call, order: id, ...ifOk(exchange, orderOf) };
    case "POST orders/:id/cancel":
      return { kind: "order.cancel", ...call, order: id, ...ifOk(exchange, orderOf) };
    default:
      return undefined;
  }
}

/** What all calls have in common. */
function callOf({ begin, end, token, gateway, response }: Exchange) {
  const outcome = outcomeOf(response?.status);
  const problem = outcome === "failed" ? parsed(response?.text ?? "") : undefined;
  return {
    begin,
    ...(outcome !== "unknown" && { end }),
    outcome,
    ...personOf(token),
    ...(gateway !== undefined && { gateway }),
    ...(outcome !== "unknown" && response !== undefined && { status: response.status }),
    ...(matches(Problem, problem) && { code: problem.code }),
  };
}

function outcomeOf(status: number | undefined): Outcome {
  if (status === undefined || status >= 500) return "unknown";
  return status < 300 ? "ok" : "failed";
}

/** Whose token it is; nobody's where there is none. Not verified: the shop does that. */
export function personOf(token: string | undefined): { user: string; admin?: true } {
  const claims = parsed(Buffer.from(token?.split(".")[1] ?? "", "base64url").toString());
  if (!matches(Claims, claims)) return { user: "" };
  return { user: claims.sub, ...(claims.role === "admin" && { admin: true }) };
}

function ifOk<Seen>(exchange: Exchange, seenOf: (exchange: Exchange) => Seen): { seen?: Seen } {
  return outcomeOf(exchange.response?.status) === "ok" ? { seen: seenOf(exchange) } : {};
}

function productOf({ response }: Exchange): ProductSeen {
  const { id, quantity, price } = read(Product, parsed(response?.text ?? ""));
  return { id, version: read(Version, versionOf(response?.headers.get("etag"))), quantity, price };
}

function orderOf({ response }: Exchange): OrderSeen {
  const { id, status, total_price, reason, history, created_at } = read(Order, parsed(response?.text ?? ""));
  return {
    id,
    version: read(Version, versionOf(response?.headers.get("etag"))),
    status,
    total: total_price,
    created: Date.parse(created_at),
    history: history.map((entry) => entry.status),
    ...(status === "PENDING" && reason !== null && { parked: true }),
  };
}

/** The one version that an ETag, or an If-Match, names. */
function versionOf(tag: string | null | undefined): number | undefined {
  const version = /^"(\d+)"$/.exec(tag ?? "")?.[1];
  return version === undefined ? undefined : Number(version);
}

/** @throws where it is something else */
export function read<S extends TSchema>(schema: S, value: unknown): Static<S> {
  if (matches(schema, value)) return value;
  throw new Error(`this can't be recorded: ${JSON.stringify({ value }).slice(0, 300)}`);
}

/** JSON; undefined where it is none. */
export function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined; // no JSON
  }
}
