import { testId } from "../../../testkit/ids";
import type { Attack } from "../attack";
import { httpText } from "../attacker";

const OF_EACH = 10;

export const streams: readonly Attack[] = [
  {
    row: "43",
    name: "100 accounts open 10 event streams each, again wherever one ends",
    least: { "200": 2, "429": 20 },
    run: async (attacker) => {
      const made = await Promise.all(
        attacker.target.accounts.map(async ({ token }) => {
          const id = await attacker.create("/orders", { token, json: { items: [{ product_id: testId(1), quantity: 1 }] } });
          return { token, id };
        }),
      );
      const own = made.flatMap(({ token, id }) => (id === undefined ? [] : { token, id }));
      if (own.length === 0) throw new Error("the attacker could not create an order to follow");
      await attacker.flood(OF_EACH * own.length, async (lane) => {
        const { token, id } = own[lane % own.length] ?? { token: "", id: "" };
        const connection = attacker.connect();
        const request = httpText("GET", `/orders/${id}/events`, { token, headers: { Accept: "text/event-stream" } });
        if (await connection.opened()) connection.write(request);
        if ((await connection.status(5_000)) === "200") await Promise.race([connection.closed(), attacker.pause(attacker.leftMs)]);
        connection.destroy();
        await attacker.pause(500 + 500 * attacker.random());
      });
    },
  },
];
