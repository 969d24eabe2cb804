import { KindGuard, type TSchema } from "@sinclair/typebox";
import { MAX_PACKET_BYTES } from "../../../broker/amqp.transporter";
import * as accounts from "../../../contracts/accounts";
import * as api from "../../../contracts/api";
import {
  ID_LENGTH,
  MAX_BATCH,
  MAX_LINES,
  PAGE_BYTES,
  RESPONSE_BYTES,
  type ActionContract,
  type EventContract,
} from "../../../contracts/contract";
import * as operations from "../../../contracts/operations";
import * as orders from "../../../contracts/orders";
import * as products from "../../../contracts/products";
import * as users from "../../../contracts/users";

/*
 * Computes the largest message of each action and event from its contract. RabbitMQ closes the connection of a node that
 * sends a message that is too large. The transporter refuses it first, which still fails everything in it.
 */

/** Maximum in UTF-8. JSON escapes `"` and `\` with two bytes; control characters, which would take six, aren't allowed. */
const BYTES_PER_CHARACTER = 4;
/** Assumed length of a text without `maxLength`, which is never a client's: a code, an id, a sentence. */
const OUR_TEXT = 1_000;
/** Digits of an integer without a maximum, and characters of the longest double. */
const DIGITS = 16;
const LONGEST_NUMBER = 24;
/** Bytes around the payload: ids of node, call and request, the caller, and Moleculer's own fields. */
const PACKET = 10_000;

/** Maximum number of items in arrays without `maxItems`, and the code that bounds it. */
const ITEMS: Readonly<Record<string, number>> = {
  "users.jwks/keys": 100, // one per month, published while its tokens are valid
  "users.revocations/kids": 100, // the same
  "users.revocations/ended": 10_000, // MAX_ENDED_PER_PAGE, in sessions.store.ts
  "users.revocations/roles": 10_000, // MAX_ROLES, in accounts.store.ts
  "orders.audit/checks": 20, // one per invariant
  "orders.audit/checks[]/sample": 10, // SAMPLE, in mixins/audit.ts
  "products.audit": 20,
  "products.audit[]/sample": 10,
};

/** Maximum number of bytes of a value of this schema as JSON. */
function largest(schema: TSchema, path: string): number {
  if (KindGuard.IsUnion(schema)) return Math.max(...schema.anyOf.map((part) => largest(part, path)));
  if (KindGuard.IsLiteral(schema)) return JSON.stringify(schema.const).length;
  if (KindGuard.IsNull(schema)) return 4;
  if (KindGuard.IsBoolean(schema)) return 5;
  if (KindGuard.IsInteger(schema)) return schema.maximum === undefined ? DIGITS + 1 : String(schema.maximum).length + 1;
  if (KindGuard.IsNumber(schema)) return LONGEST_NUMBER;
  if (KindGuard.IsArray(schema)) {
    const items = schema.maxItems ?? ITEMS[path];
    if (items === undefined) throw new Error(`${path} has no maxItems: add its maximum to ITEMS`);
    return 2 + items * (1 + largest(schema.items, `${path}[]`));
  }
  if (KindGuard.IsObject(schema)) {
    if ("next_cursor" in schema.properties) return PAGE_BYTES; // bounded by mixins/keyset.ts
    const fields = Object.entries(schema.properties).map(([name, field]) => name.length + 4 + largest(field, `${path}/${name}`));
    return 2 + fields.reduce((sum, bytes) => sum + bytes, 0);
  }
  // `^[a-z]{1,36}$`: the maximum number of ASCII characters, each of which may be escaped
  const ascii = /\{(?:\d+,)?(\d+)\}\$$/.exec(String(schema["pattern"]))?.[1];
  if (ascii !== undefined) return 2 + 2 * Number(ascii);
  if (schema["format"] === "date-time") return 32;
  if (schema["format"] === "uuid") return 2 + ID_LENGTH;
  return 2 + BYTES_PER_CHARACTER * (typeof schema["maxLength"] === "number" ? schema["maxLength"] : OUR_TEXT);
}

const line = largest(orders.Order.properties.items.items, "line");
/** Bytes of a new order without its lines; it has no reason yet. */
const EMPTY_ORDER = 1_000;

/** Messages that are bounded by other means than their contract. */
const BOUNDED: Readonly<Record<string, number>> = {
  // by countWithin, which takes at least one order
  "orders.getMany": RESPONSE_BYTES + MAX_BATCH * 5,
  // by the weight of its batch; a refusal is shorter per line
  "orders.createMany": orders.LINES_PER_CALL * (1 + line) + MAX_BATCH * EMPTY_ORDER,
  // by RESERVED_LINES_PER_CALL, and one more of MAX_LINES
  "products.reservations": (products.RESERVED_LINES_PER_CALL + MAX_LINES) * 75 + 10_000 * 90,
  // orders with up to MAX_LINES lines, which the handler validates individually
  "order.created": MAX_BATCH * (MAX_LINES * (1 + largest(orders.CreatedOrder.properties.lines.items, "line")) + 120),
};

const contracts = [api, accounts, users, operations, products, orders]
  .flatMap((exported): unknown[] => Object.values(exported))
  .filter(
    (value): value is ActionContract | EventContract =>
      typeof value === "object" && value !== null && "name" in value && "params" in value && !String(value.name).startsWith("api."),
  );
const messages = contracts.flatMap((contract): [string, number][] =>
  "result" in contract
    ? [
        [`the request of ${contract.name}`, largest(contract.params, contract.name)],
        [`the response of ${contract.name}`, BOUNDED[contract.name] ?? largest(contract.result, contract.name)],
      ]
    : [[`the event ${contract.name}`, BOUNDED[contract.name] ?? largest(contract.params, contract.name)]],
);

it("all contracts are included", () => {
  expect(messages.length).toBeGreaterThan(50);
});

it.each(messages)("%s, at most %i bytes, fits into a message", (_what, bytes) => {
  expect(bytes + PACKET).toBeLessThanOrEqual(MAX_PACKET_BYTES);
});
