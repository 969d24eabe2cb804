import { DATABASE_NAMES } from "../../scripts/node";
import type { Chaos, Fault, Ground, GroundPlan } from "./fault";
import { Load } from "./load";
import type { PostgresServer } from "./postgres-server";
import type { Postgres } from "./system";

/** A shop on databases of its own, with the build and the RabbitMQ of the common system, and with a load. @param env of its nodes, over the usual */
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

/** The same with all three databases on one server, which has none yet. */
export async function shopOnServer(server: PostgresServer, plan: GroundPlan, name: string): Promise<Ground> {
  for (const database of Object.values(DATABASE_NAMES)) await server.createDatabase(database, "postgres");
  return shopOn(server, plan, name);
}

/** Of a fault on a ground of its own that needs more of that ground than its system and its load. @param lay gives that too */
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
      if (laid === undefined) throw new Error("no ground was laid");
      await inject(chaos, laid.more);
    },
  };
}
