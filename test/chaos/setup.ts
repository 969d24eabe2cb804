import { DATABASE_NAMES } from "../../scripts/node";
import { Load } from "../../testkit/load/load";
import type { Postgres } from "../../testkit/system/system";
import type { Chaos, Fault, Setup, SetupPlan } from "./fault";
import type { PostgresServer } from "./postgres-server";

/** Starts a shop with a load on other databases, with the build and RabbitMQ of the common system. @param env additional variables of its nodes */
export async function startShopOn(
  postgres: Postgres,
  { common, random, onStop }: SetupPlan,
  name: string,
  env: Record<string, string> = {},
): Promise<Setup> {
  const system = await common.another(name, postgres, env);
  onStop(() => system.stop());
  await system.scale({});
  const load = new Load(system, random);
  await load.setUp();
  return { system, load };
}

/** The same with all three databases on one server, where it creates them. */
export async function startShopOnServer(server: PostgresServer, plan: SetupPlan, name: string): Promise<Setup> {
  for (const database of Object.values(DATABASE_NAMES)) await server.createDatabase(database, "postgres");
  return startShopOn(server, plan, name);
}

/** For a fault with its own shop that also needs other parts of it, such as a server. @param start starts the shop and returns them, too */
export function withOwnSetup<T>(
  start: (plan: SetupPlan) => Promise<[Setup, T]>,
  inject: (chaos: Chaos, more: T) => Promise<void>,
): Pick<Fault, "setUp" | "inject"> {
  let prepared: { more: T } | undefined;
  return {
    async setUp(plan) {
      const [setup, more] = await start(plan);
      prepared = { more };
      return setup;
    },
    async inject(chaos) {
      if (prepared === undefined) throw new Error("inject was called before setUp");
      await inject(chaos, prepared.more);
    },
  };
}
