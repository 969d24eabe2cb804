import { setTimeout as pause } from "node:timers/promises";
import type { Check, Stage } from "../attack";

const WITHIN_MS = 2_000;

async function send(stage: Stage, method: string, path: string, token: string, json?: object): Promise<number> {
  const response = await fetch(stage.shop.url + path, {
    method,
    headers: { Authorization: `Bearer ${token}`, ...(json !== undefined && { "Content-Type": "application/json" }) },
    ...(json !== undefined && { body: JSON.stringify(json) }),
    signal: AbortSignal.timeout(10_000),
  });
  await response.arrayBuffer();
  return response.status;
}

/** @returns a violation, if the status isn't the expected one in time */
async function becomes(stage: Stage, expected: number, path: string, token: string): Promise<string[]> {
  const deadline = performance.now() + WITHIN_MS;
  for (;;) {
    const status = await send(stage, "GET", path, token);
    if (status === expected) return [];
    if (performance.now() > deadline) return [`GET ${path} still responds ${status} after ${WITHIN_MS} ms, not ${expected}`];
    await pause(50);
  }
}

async function change(stage: Stage, id: string, json: object): Promise<string[]> {
  const status = await send(stage, "PATCH", `/admin/users/${id}`, stage.people.admins[0]?.token ?? "", json);
  return status === 200 ? [] : [`PATCH /admin/users/{id} ${JSON.stringify(json)} responds ${status}`];
}

/** Disabling and demoting an account must take effect in every process. The service's own tests cover open streams. */
export const accounts: readonly Check[] = [
  {
    row: "46",
    name: "a disabled account and a demoted admin",
    check: async (stage) => {
      const account = stage.people.attackers.at(-1);
      const demoted = stage.people.admins[1];
      if (account === undefined || demoted === undefined) return ["there is no account to disable"];
      return [
        ...(await change(stage, account.id, { disabled: true })),
        ...(await becomes(stage, 401, "/me", account.token)),
        ...(await change(stage, demoted.id, { role: "user" })),
        ...(await becomes(stage, 403, "/admin/nodes", demoted.token)),
      ];
    },
  },
];
