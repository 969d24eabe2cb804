import { DATABASE_NAMES } from "../../scripts/node";
import { Load } from "../../testkit/load/load";
import type { Postgres } from "../../testkit/system/system";
import type { Chaos, Fault, Ground, GroundPlan } from "./fault";
import type { PostgresServer } from "./postgres-server";

/** Starts a shop with a load on other databases, with the build and RabbitMQ of the common system. @param env additional variables of its nodes */
export async function shopOn(
  postgres: Postgres,
  { common, random, onStop }: GroundPlan,
  name: string,
  env: Record<string, string> = {},
): Promise<Ground> {
  const system = await common.another(name, postgres, env);
  onStop(() => system.stop());
  await system.scale({});
  const load = new Load(system, random);
  await load.setUp();
  return { system, load };
}

/** The same with all three databases on one server, where it creates them. */
export async function shopOnServer(server: PostgresServer, plan: GroundPlan, name: string): Promise<Ground> {
  for (const database of Object.values(DATABASE_NAMES)) await server.createDatabase(database, "postgres");
  return shopOn(server, plan, name);
}

/** For a fault with its own shop that also needs other parts of it, such as a server. @param lay starts the shop and returns them, too */
export function onGround<T>(
  lay: (plan: GroundPlan) => Promise<[Ground, T]>,
  inject: (chaos: Chaos, more: T) => Promise<void>,
): Pick<Fault, "ground" | "inject"> {
  let laid: { more: T } | undefined;
  return {
    async ground(plan) {
      const [ground, more] = await lay(plan);
      laid = { more };
      return ground;
    },
    async inject(chaos) {
      if (laid === undefined) throw new Error("inject was called before ground");
      await inject(chaos, laid.more);
    },
  };
}
