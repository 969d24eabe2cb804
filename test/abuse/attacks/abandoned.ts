import type { Attack } from "../attack";
import { httpText } from "../attacker";
import { insertLongOrders } from "../data";

const REQUESTS = 500;
/** Long enough for the gateway to read the requests; then the connection is closed. */
const STAY_MS = 50;
const AGAIN_MS = 500;

export const abandoned: readonly Attack[] = [
  {
    row: "40",
    name: `one user pipelines ${REQUESTS} × GET /orders?limit=100 with 100 long lines each and closes, twice a second`,
    least: { "requests given up": 100 },
    quick: ["nodes"],
    prepare: async (context) => {
      await insertLongOrders(context, context.accounts.attackers[4]?.id ?? "", 100);
      return {};
    },
    run: async (attacker) => {
      const one = httpText("GET", "/orders?limit=100", { token: attacker.target.accounts[4]?.token });
      const all = Buffer.concat(Array<Buffer>(REQUESTS).fill(one));
      await attacker.flood(1, async () => {
        const connection = attacker.connect();
        if (await connection.opened()) {
          connection.write(all);
          attacker.count("requests given up", REQUESTS);
        }
        await attacker.pause(STAY_MS);
        connection.destroy();
        await attacker.pause(AGAIN_MS);
      });
    },
    expect: ({ busyCores }) =>
      busyCores > 0.5
        ? [`a second after the last request was abandoned, ${(100 * busyCores).toFixed(0)} % of a core was still in use`]
        : [],
  },
];
