import { ID_LENGTH } from "../../contracts/contract";

/** JSON schemas that validate requests and serialize responses. */
const text = { type: "string" };
const integer = { type: "integer" };
const nullable = { type: ["string", "null"] };
const object = (properties: Record<string, unknown>) => ({ type: "object", properties, required: Object.keys(properties) });

export const PRODUCT = object({
  id: text,
  name: text,
  price: { type: "number" },
  quantity: integer,
  description: nullable,
  category: nullable,
  sku: nullable,
  seller_id: text,
  created_at: text,
  updated_at: text,
});
export const PRODUCTS = object({ items: { type: "array", items: PRODUCT }, next_cursor: nullable });

export const QUOTES = { type: "array", items: object({ id: text, name: text, price_cents: integer, quantity: integer }) };

export const ORDER = object({
  id: text,
  user_id: text,
  status: text,
  total_price: { type: "number" },
  items: { type: "array", items: object({ product_id: text, name: text, unit_price: { type: "number" }, quantity: integer }) },
  reason: nullable,
  history: { type: "array", items: object({ status: text, at: text }) },
  created_at: text,
  updated_at: text,
});

/** The maximum length excludes URNs, which the format accepts. */
const id = { type: "string", format: "uuid", maxLength: ID_LENGTH };
export const NEW_ORDER = {
  ...object({
    items: {
      type: "array",
      minItems: 1,
      maxItems: 100,
      items: { ...object({ product_id: id, quantity: { type: "integer", minimum: 1, maximum: 10_000 } }), additionalProperties: false },
    },
  }),
  additionalProperties: false,
};
export const PAGE_QUERY = {
  type: "object",
  additionalProperties: false,
  properties: {
    limit: { type: "string", pattern: "^([1-9][0-9]?|100)$" },
    q: { type: "string", minLength: 1, maxLength: 200 },
    cursor: { type: "string", minLength: 1, maxLength: 4096 },
  },
};

export interface Line {
  product_id: string;
  quantity: number;
}
export interface Quote {
  id: string;
  name: string;
  price_cents: number;
  quantity: number;
}
export interface Shortage {
  product_id: string;
  wanted: number;
  available: number;
}
/** `order.created`: this order needs stock. */
export interface OrderCreated {
  order_id: string;
  lines: Line[];
}
/** `stock.settled`: the outcome of its reservation. */
export interface StockSettled {
  order_id: string;
  outcome: "RESERVED" | "REJECTED";
  shortages: Shortage[];
}

export const describeShortages = (shortages: readonly Shortage[]): string =>
  `not enough stock: ${shortages.map((s) => `product ${s.product_id}: ${s.wanted} wanted, ${s.available} left`).join("; ")}`;
