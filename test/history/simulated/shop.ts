import { isFinal, type Line, type Status } from "../../../contracts/orders";
import { after, mergeLines, NEXT } from "../../../services/orders/order";
import type { OrderSeen, ProductSeen } from "../../../testkit/history/operation";
import type { VirtualClock } from "./clock";

export interface SimulatedProduct extends ProductSeen {
  seller: string;
  created: number;
}

export interface SimulatedOrder {
  id: string;
  user: string;
  lines: Line[];
  request: string;
  status: Status;
  version: number;
  history: Status[];
  total: number;
  created: number;
  stock?: "RESERVED" | "REJECTED" | "RELEASED";
  /** The streams that follow it. */
  listeners: Set<() => void>;
}

/** A definite response. */
export type Response<T> = { ok: T } | { status: number; code: string };
const refused = (status: number, code: string) => ({ status, code });

/** Milliseconds since 1970 at which the simulation begins. */
export const EPOCH = 1_790_000_000_000;

/**
 * A correct shop in one process: it does what the API promises, and reserves and releases stock some time after the response. Each method
 * takes effect atomically at the moment of its call.
 */
export class SimulatedShop {
  readonly products = new Map<string, SimulatedProduct>();
  readonly orders = new Map<string, SimulatedOrder>();
  /** By user, oldest first. */
  readonly ordersOf = new Map<string, SimulatedOrder[]>();
  /** Number of unfinished reservations and releases. */
  pending = 0;
  private readonly keys = new Map<string, SimulatedOrder>();

  /** @param delay ms until a message is handled */
  constructor(
    private readonly clock: VirtualClock,
    private readonly delay: () => number,
  ) {}

  createProduct(seller: string, quantity: number, price: number): ProductSeen {
    const id = `p${String(this.products.size).padStart(4, "0")}`;
    const product = { id, version: 1, edits: 1, quantity, price, seller, created: EPOCH + Math.floor(this.clock.now) };
    this.products.set(id, product);
    return seen(product);
  }

  readProduct(id: string): Response<ProductSeen> {
    const product = this.products.get(id);
    return product ? { ok: seen(product) } : refused(404, "PRODUCT_NOT_FOUND");
  }

  /** @param ifMatch the edits that the product must have */
  patch(id: string, price: number, ifMatch?: number): Response<ProductSeen> {
    const product = this.products.get(id);
    if (product === undefined) return refused(404, "PRODUCT_NOT_FOUND");
    if (ifMatch !== undefined && ifMatch !== product.edits) return refused(412, "PRECONDITION_FAILED");
    product.price = price;
    product.version++;
    product.edits++;
    return { ok: seen(product) };
  }

  adjust(id: string, delta: number): Response<ProductSeen> {
    const product = this.products.get(id);
    if (product === undefined) return refused(404, "PRODUCT_NOT_FOUND");
    if (product.quantity + delta < 0) return refused(409, "INSUFFICIENT_STOCK");
    product.quantity += delta;
    product.version++;
    return { ok: seen(product) };
  }

  place(user: string, key: string, items: Line[]): Response<{ order: SimulatedOrder; replayed: boolean }> {
    const lines = mergeLines(items);
    const request = JSON.stringify(lines);
    const name = `${user} ${key}`;
    const made = this.keys.get(name);
    if (made !== undefined)
      return made.request === request ? { ok: { order: made, replayed: true } } : refused(422, "IDEMPOTENCY_KEY_REUSED");
    let total = 0;
    for (const { product_id, quantity } of lines) {
      const product = this.products.get(product_id);
      if (product === undefined) return refused(404, "PRODUCT_NOT_FOUND");
      if (product.quantity < quantity) return refused(409, "INSUFFICIENT_STOCK");
      total += product.price * quantity;
    }
    const order: SimulatedOrder = {
      id: `o${String(this.orders.size).padStart(8, "0")}`,
      user,
      lines,
      request,
      status: "PENDING",
      version: 1,
      history: ["PENDING"],
      total,
      created: EPOCH + Math.floor(this.clock.now),
      listeners: new Set(),
    };
    this.orders.set(order.id, order);
    this.keys.set(name, order);
    const own = this.ordersOf.get(user) ?? [];
    own.push(order);
    this.ordersOf.set(user, own);
    this.later(() => this.reserve(order));
    return { ok: { order, replayed: false } };
  }

  /** Reads an order; the caller is no admin. */
  readOrder(user: string, id: string): Response<OrderSeen> {
    const order = this.orders.get(id);
    return order?.user === user ? { ok: show(order) } : refused(404, "ORDER_NOT_FOUND");
  }

  cancel(user: string, id: string): Response<OrderSeen> {
    const order = this.orders.get(id);
    if (order?.user !== user) return refused(404, "ORDER_NOT_FOUND");
    const cancelled = after(order.status, "cancel");
    if (cancelled === undefined) return refused(409, "ORDER_NOT_CANCELLABLE");
    if (order.status !== cancelled) {
      this.become(order, cancelled);
      this.later(() => this.release(order));
    }
    return { ok: show(order) };
  }

  private later(work: () => void): void {
    this.pending++;
    this.clock.after(this.delay(), () => {
      this.pending--;
      work();
    });
  }

  private reserve(order: SimulatedOrder): void {
    if (order.stock !== undefined) return; // its cancel came first
    const isShort = order.lines.some((line) => (this.products.get(line.product_id)?.quantity ?? 0) < line.quantity);
    order.stock = isShort ? "REJECTED" : "RESERVED";
    if (!isShort) this.move(order, -1);
    const status = isShort ? "REJECTED" : "CONFIRMED";
    this.later(() => {
      if (order.status === "PENDING") this.become(order, status);
    });
  }

  private release(order: SimulatedOrder): void {
    if (order.stock === "RESERVED") this.move(order, 1);
    if (order.stock !== "REJECTED") order.stock = "RELEASED";
  }

  private move({ lines }: SimulatedOrder, sign: 1 | -1): void {
    for (const { product_id, quantity } of lines) {
      const product = this.products.get(product_id);
      if (product === undefined) continue; // can't happen, since products are never removed
      product.quantity += sign * quantity;
      product.version++;
    }
  }

  private become(order: SimulatedOrder, status: Status): void {
    if (!NEXT[order.status].includes(status)) throw new Error(`an order can't go from ${order.status} to ${status}`);
    order.status = status;
    order.version++;
    order.history = [...order.history, status];
    for (const listener of order.listeners) listener();
    if (isFinal(status)) order.listeners.clear();
  }
}

const seen = ({ id, version, edits, quantity, price }: SimulatedProduct): ProductSeen => ({ id, version, edits, quantity, price });

const show = ({ id, version, status, total, created, history }: SimulatedOrder): OrderSeen => ({
  id,
  version,
  status,
  total,
  created,
  history,
});
