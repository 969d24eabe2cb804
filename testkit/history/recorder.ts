import { Type, type Static, type TSchema } from "@sinclair/typebox";
import { matches } from "../../broker/validator";
import { nullable } from "../../contracts/contract";
import { Status } from "../../contracts/orders";
import type { Operation, OrderSeen, Outcome, ProductSeen } from "./operation";

/** One request and its response, if any, as the client saw them. */
export interface Exchange {
  method: string;
  /** Includes the query. */
  path: string;
  body?: unknown;
  /** The request's headers, with names in lower case. */
  headers?: Readonly<Record<string, string>>;
  /** The access token that it was sent with. */
  token?: string | undefined;
  gateway?: string;
  /** By `performance.now()`: before sending, and after reading the whole response. */
  begin: number;
  end: number;
  response?: { status: number; headers: { get(name: string): string | null }; text: string } | undefined;
}

/** A larger history is no longer kept or checked. */
const MAX_OPERATIONS = 300_000;

/** Records the calls of one process as they end. */
export class Recorder {
  private all: Operation[] = [];
  private isFull = false;

  /** @param most maximum number of operations */
  constructor(private readonly most = MAX_OPERATIONS) {}

  add(operation: Operation): void {
    if (this.all.length < this.most) this.all.push(operation);
    else this.isFull = true;
  }

  /** Records the operation of a request, if it is one. */
  record(exchange: Exchange): void {
    const operation = operationOf(exchange);
    if (operation !== undefined) this.add(operation);
  }

  /** The history so far; undefined if it has become too large. */
  get operations(): readonly Operation[] | undefined {
    return this.isFull ? undefined : this.all;
  }

  /** Discards the history and starts a new one. */
  restart(): void {
    this.all = [];
    this.isFull = false;
  }
}

const Version = Type.Integer({ minimum: 1 });
const ProductTag = Type.Object({ edits: Version, version: Version });
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
 * The operation that a request is in a history; undefined if it is none. Walks and streams are recorded by their readers.
 * @throws if a successful response doesn't have the expected form
 */
export function operationOf(exchange: Exchange): Operation | undefined {
  const { method, path, body, headers = {}, response } = exchange;
  if (response?.status === 304) return undefined;
  const [resource = "", id = "", action = ""] = path.slice(1).split("?")[0]?.split("/") ?? [];
  const call = callOf(exchange);
  switch (`${method} ${resource}${id && "/:id"}${action && `/${action}`}`) {
    case "POST products": {
      const { quantity, price } = validated(NewProduct, body);
      return { kind: "product.create", ...call, quantity, price, ...ifOk(exchange, productOf) };
    }
    case "GET products/:id":
      return { kind: "product.read", ...call, product: id, ...ifOk(exchange, productOf) };
    case "PATCH products/:id": {
      const tag = productTagOf(headers["if-match"]);
      const { price } = validated(NewPrice, body);
      return {
        kind: "product.patch",
        ...call,
        product: id,
        price,
        ...(tag !== undefined && { if_match: tag.edits }),
        ...ifOk(exchange, productOf),
      };
    }
    case "POST products/:id/stock":
      return { kind: "product.adjust", ...call, product: id, delta: validated(Adjustment, body).delta, ...ifOk(exchange, productOf) };
    case "POST orders": {
      const key = headers["idempotency-key"];
      return {
        kind: "order.place",
        ...call,
        ...(key !== undefined && { key }),
        lines: validated(NewOrder, body).items.map(({ product_id, quantity }) => ({ product_id, quantity })),
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

/** The common fields of all calls. */
function callOf({ begin, end, token, gateway, response }: Exchange) {
  const outcome = outcomeOf(response?.status);
  const problem = outcome === "failed" ? parsed(response?.text ?? "") : undefined;
  return {
    begin,
    ...(outcome !== "unknown" && { end }),
    outcome,
    ...userOf(token),
    ...(gateway !== undefined && { gateway }),
    ...(outcome !== "unknown" && response !== undefined && { status: response.status }),
    ...(matches(Problem, problem) && { code: problem.code }),
  };
}

function outcomeOf(status: number | undefined): Outcome {
  if (status === undefined || status >= 500) return "unknown";
  return status < 300 ? "ok" : "failed";
}

/** The user of an access token; "" without one. The token isn't verified, since the shop does that. */
export function userOf(token: string | undefined): { user: string; admin?: true } {
  const claims = parsed(Buffer.from(token?.split(".")[1] ?? "", "base64url").toString());
  if (!matches(Claims, claims)) return { user: "" };
  return { user: claims.sub, ...(claims.role === "admin" && { admin: true }) };
}

function ifOk<Seen>(exchange: Exchange, seenOf: (exchange: Exchange) => Seen): { seen?: Seen } {
  return outcomeOf(exchange.response?.status) === "ok" ? { seen: seenOf(exchange) } : {};
}

function productOf({ response }: Exchange): ProductSeen {
  const { id, quantity, price } = validated(Product, parsed(response?.text ?? ""));
  return { id, ...validated(ProductTag, productTagOf(response?.headers.get("etag"))), quantity, price };
}

function orderOf({ response }: Exchange): OrderSeen {
  const { id, status, total_price, reason, history, created_at } = validated(Order, parsed(response?.text ?? ""));
  return {
    id,
    version: validated(Version, versionOf(response?.headers.get("etag"))),
    status,
    total: total_price,
    created: Date.parse(created_at),
    history: history.map((entry) => entry.status),
    ...(status === "PENDING" && reason !== null && { parked: true }),
  };
}

/** The parts of a product's ETag, or of If-Match; undefined if it isn't exactly one. */
function productTagOf(tag: string | null | undefined): Static<typeof ProductTag> | undefined {
  const [, edits, version] = /^"(\d+)-(\d+)"$/.exec(tag ?? "") ?? [];
  return version === undefined ? undefined : { edits: Number(edits), version: Number(version) };
}

/** The version in an order's ETag; undefined if it isn't exactly one. */
function versionOf(tag: string | null | undefined): number | undefined {
  const version = /^"(\d+)"$/.exec(tag ?? "")?.[1];
  return version === undefined ? undefined : Number(version);
}

/** @throws if the value doesn't match the schema */
export function validated<S extends TSchema>(schema: S, value: unknown): Static<S> {
  if (matches(schema, value)) return value;
  throw new Error(`unexpected form, can't be recorded: ${JSON.stringify({ value }).slice(0, 300)}`);
}

/** Parses JSON; undefined if it is invalid. */
export function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
