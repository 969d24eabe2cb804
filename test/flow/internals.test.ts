import { readFileSync } from "node:fs";
import path from "node:path";
import { inspect } from "node:util";
import type { BrokerOptions, Middleware, Packet, ServiceBroker } from "moleculer";
import { Client as Postgres } from "pg";
import { amqpTransporter } from "../../broker/amqp.transporter";
import { testId } from "../../testkit/ids";
import { ROOT } from "../../testkit/repository";
import { ADMIN } from "../../testkit/admin";
import { startShop, type Shop } from "../../testkit/shop";

const PLANTED = "canary-a8d1f0";
const PLANTED_URL = `amqp://shop:${PLANTED}@mq.test:5672/shop`;

/** An option that `$node.options` would show; the type declaration of "Fake" has no options. */
const TRANSPORTER = { type: "Fake", options: { url: PLANTED_URL } } as BrokerOptions["transporter"] & object;

/** The packets in which nodes describe themselves to each other. */
const infos: string[] = [];
const recording = {
  name: "Recording",
  transitPublish:
    (next: (packet: Packet.Packet<Packet.PacketInfoPayload>) => unknown) => (packet: Packet.Packet<Packet.PacketInfoPayload>) => {
      if (packet.type === "INFO") infos.push(JSON.stringify(packet.payload));
      return next(packet);
    },
} as unknown as Middleware; // the type declaration of transitPublish lacks its returned function

let shop: Shop;
/** A node without the services called below, so that every call crosses the transporter. */
let remote: ServiceBroker;
let secrets: string[];

beforeAll(async () => {
  shop = await startShop({
    nodes: [["api"], ["users"], ["products", "orders"]],
    broker: { transporter: TRANSPORTER, middlewares: [recording] },
  });
  remote = shop.node("api");
  const database = new Postgres(shop.databases.users.url);
  await database.connect();
  const { rows } = await database.query<{ secret: string }>(
    "select password_hash as secret from users union all select private_key from signing_keys",
  );
  await database.end();
  const urls = Object.values(shop.databases).flatMap(({ url }) => [url, new URL(url).password, new URL(url).pathname]);
  secrets = [PLANTED, ADMIN.password, "PRIVATE KEY", "$2b$", ...rows.map(({ secret }) => secret), ...urls].filter(
    (text) => text.length > 3,
  );
});
afterAll(() => shop.stop());

const expectNoSecret = (what: string, result: unknown): void => {
  const text =
    typeof result === "string" ? result : inspect(result, { depth: Infinity, maxStringLength: Infinity, maxArrayLength: Infinity });
  expect([what, secrets.filter((secret) => text.includes(secret))]).toEqual([what, []]);
};

/** The built-in actions of the installed Moleculer, read from its source to include those of later versions. */
function builtIns(): string[] {
  const source = readFileSync(path.join(ROOT, "node_modules/moleculer/src/internals.js"), "utf8");
  return [...source.matchAll(/^\t\t\t(\w+): \{$/gm)].map(([, name]) => `$node.${name!}`);
}

it("of Moleculer's built-in actions only $node.health can be called from another node, and it reveals no secret and no command line", async () => {
  const names = builtIns();
  expect(names).toEqual(expect.arrayContaining(["$node.options", "$node.services", "$node.list", "$node.metrics", "$node.health"]));
  for (const { nodeID } of shop.nodes)
    for (const name of names) {
      const params = { withServices: true, withActions: true, withEvents: true, withEndpoints: true };
      const result: unknown = await remote.call(name, name === "$node.health" ? {} : params, { nodeID }).catch((error: unknown) => error);
      if (name !== "$node.health") expect([name, nodeID, (result as { type?: unknown }).type]).toEqual([name, nodeID, "SERVICE_NOT_FOUND"]);
      else
        expect(result).toEqual({
          cpu: { utilization: expect.any(Number) },
          process: { uptime: expect.any(Number), memory: { rss: expect.any(Number) } },
        });
      expectNoSecret(name, result);
    }
  const internal = remote.registry.actions.list({}).filter(({ name }) => name.startsWith("$"));
  expect(internal.map(({ name }) => name)).toEqual(["$node.health"]);
});

it("no action of the shop returns a secret of its node, whether the call succeeds or fails", async () => {
  const names = remote.registry.actions
    .list({ onlyAvailable: true })
    .map(({ name }) => name)
    .filter((name) => !name.startsWith("api."));
  expect(names).toEqual(expect.arrayContaining(["users.jwks", "users.me", "orders.audit", "products.health"]));
  for (const name of names)
    for (const params of [{}, { id: 1 }, { id: testId(1) }, { ids: [testId(1)] }, { ...ADMIN, address: "127.0.0.1" }]) {
      const meta = { user: { id: testId(1), role: "admin" } };
      expectNoSecret(name, await remote.call(name, params, { meta }).catch((error: unknown) => error));
    }
});

// The registry, and therefore the REPL, knows this about other nodes.
it("the descriptions of services, settings and actions that nodes exchange contain no secret", () => {
  expect(infos.length).toBeGreaterThanOrEqual(shop.nodes.length);
  const all = infos.join("\n");
  for (const name of ["users.token", "products.quote", "orders.audit"]) expect(all).toContain(`"${name}"`);
  expectNoSecret("INFO", all);
});

it("a node's transporter prints without its URL", () => {
  const transporter = amqpTransporter(PLANTED_URL);
  expect(Object.keys(transporter.opts)).toContain("prefetch");
  expectNoSecret("transporter", transporter);
  expectNoSecret("transporter", JSON.stringify(transporter));
});
