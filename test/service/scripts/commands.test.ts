import type { ServiceBroker } from "moleculer";
import { Client } from "pg";
import * as accounts from "../../../contracts/accounts";
import * as orders from "../../../contracts/orders";
import { stockSettled } from "../../../contracts/products";
import * as users from "../../../contracts/users";
import { COMMANDS } from "../../../scripts/commands";
import { consoleOf } from "../../../scripts/console";
import { testId } from "../../../testkit/ids";
import { startShop, type Shop } from "../../../testkit/shop";

const table = (rows: string[][]): string => rows.map((row) => row.join(" | ")).join("\n");

let shop: Shop;
let parked: number;

/** The console's output for a command, with its arguments as moleculer-repl parses them. */
async function typed(
  name: string,
  args: { options?: Record<string, unknown>; id?: string },
  broker = shop.node("orders"),
): Promise<string> {
  const print = jest.spyOn(console, "log").mockImplementation();
  try {
    const command = COMMANDS.find((one) => one.command.split(" ")[0] === name);
    const action = command?.action as ((broker: ServiceBroker, args: object, helpers: object) => Promise<void>) | undefined;
    await action?.(broker, { options: {}, ...args }, { table });
    return print.mock.calls.flat().join("\n");
  } finally {
    print.mockRestore();
  }
}

beforeAll(async () => {
  // Two nodes, so that the console calls the one that hosts orders. There is no listener, so replayed rows stay pending.
  shop = await startShop({ nodes: [["orders"], ["users"]] });
  const db = new Client(shop.databases.orders.url);
  await db.connect();
  const { rows } = await db.query<{ id: string }>(
    `with o as (
       insert into orders (user_id, idempotency_key, request_hash, lines_digest, total_cents) select $1, n, 'x', 'x', 100 from unnest(array['new', 'broken']) n
       returning id, idempotency_key = 'broken' as broken
     )
     insert into outbox (subject, event, payload, state, attempts, last_error)
     select id, 'order.created', '{"lines": "nonsense"}',
       case when broken then 'PARKED' else 'PENDING' end, case when broken then 1 else 0 end, case when broken then 'lines must be array' end
     from o order by broken returning id`,
    [testId(1)],
  );
  await db.end();
  parked = Number(rows[1]?.id);
});
afterAll(() => shop.stop());

describe("the console's outbox", () => {
  it("lists pending and parked rows, with order and reason, from any node", async () => {
    const lines = (await typed("outbox", {}, shop.node("users"))).split("\n");
    expect(lines).toHaveLength(3);
    expect(lines[0]).toBe("id | order | event | state | attempts | next attempt | last error");
    expect(lines[1]).toMatch(/^\d+ \| [0-9a-f-]{36} \| order\.created \| PENDING \| 0 \| 2\d{3}-.*Z \| -$/);
    expect(lines[2]).toMatch(
      new RegExp(`^${parked} \\| [0-9a-f-]{36} \\| order\\.created \\| PARKED \\| 1 \\| - \\| lines must be array$`),
    );
  });

  it.each([
    [{ state: "parked" }, /\| PARKED \|/],
    [{ state: "settled" }, /^None\.$/],
    [{ limit: "1" }, /The oldest 1; there are more: see --limit\.$/],
    [{ state: "lost" }, /^VALIDATION_ERROR: state does not have/],
    [{ limit: "many" }, /^VALIDATION_ERROR: limit must be integer$/],
  ])("with %j prints %s", async (options, response) => {
    expect(await typed("outbox", { options })).toMatch(response);
  });
});

describe("the console's replay", () => {
  it("makes a parked row pending again, once", async () => {
    expect(await typed("replay", { id: String(parked) })).toBe(`Outbox row ${parked} is pending again.`);
    expect(await typed("outbox", { options: { state: "parked" } })).toBe("None.");
    expect(await typed("replay", { id: String(parked) })).toBe("NOT_PARKED: this outbox row is not parked");
  });

  it.each([
    ["999999", "NOT_FOUND: there is no such outbox row"],
    ["soon", "VALIDATION_ERROR: id must be integer"],
  ])("of %s is refused with its reason", async (id, response) => {
    expect(await typed("replay", { id })).toBe(response);
  });
});

describe("the console's lists of actions and events", () => {
  const paramsIn = (list: readonly { name: string }[], name: string): string[] => {
    const item = list.find((candidate) => candidate.name === name) as Record<string, { params?: object } | undefined> | undefined;
    return Object.keys((item?.["action"] ?? item?.["event"])?.params ?? {});
  };

  it.each([0, 1])("have each param by its name, on node %i, whichever node hosts the service", (i) => {
    const { registry } = consoleOf(shop.nodes[i]!);
    const actions = registry.getActionList({});
    for (const { name, params } of [orders.create, orders.repair, orders.outbox, users.register, accounts.update])
      expect([name, paramsIn(actions, name)]).toEqual([name, Object.keys(params.properties)]);
    expect(paramsIn(registry.getEventList({}), stockSettled.name)).toEqual(["orders"]);
  });

  it.each(["actions", "events"])("%s prints them", async (list) => {
    const print = jest.spyOn(console, "log").mockImplementation();
    try {
      type Command = { handler: (broker: ServiceBroker, args: object) => Promise<void> };
      const { handler } = jest.requireActual<Command>(`moleculer-repl/src/commands/${list}`);
      await handler(consoleOf(shop.node("orders")), { options: {} });
      const printed = print.mock.calls.flat().join("\n");
      expect(printed).toMatch(list === "actions" ? /orders\.create\s.*items, idempotency_key/ : /stock\.settled.*orders/);
      expect(printed).not.toContain("additionalProperties");
    } finally {
      print.mockRestore();
    }
  });

  it("leave the schemas of the node itself alone, which validate its calls", () => {
    consoleOf(shop.node("orders")).registry.getActionList({});
    const { registry } = shop.node("orders");
    const own = registry.getActionList({}).find(({ name }) => name === orders.create.name);
    expect(own?.action?.params).toMatchObject({ type: "object", additionalProperties: false });
  });
});
