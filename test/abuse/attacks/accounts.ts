import { setTimeout as pause } from "node:timers/promises";
import type { AttackContext, Check } from "../attack";

const WITHIN_MS = 2_000;

async function send(context: AttackContext, method: string, path: string, token: string, json?: object): Promise<number> {
  const response = await fetch(context.shop.url + path, {
    method,
    headers: { Authorization: `Bearer ${token}`, ...(json !== undefined && { "Content-Type": "application/json" }) },
    ...(json !== undefined && { body: JSON.stringify(json) }),
    signal: AbortSignal.timeout(10_000),
  });
  await response.arrayBuffer();
  return response.status;
}

/** @returns a violation, if the status isn't the expected one in time */
async function becomes(context: AttackContext, expected: number, path: string, token: string): Promise<string[]> {
  const deadline = performance.now() + WITHIN_MS;
  for (;;) {
    const status = await send(context, "GET", path, token);
    if (status === expected) return [];
    if (performance.now() > deadline) return [`GET ${path} still responds ${status} after ${WITHIN_MS} ms, not ${expected}`];
    await pause(50);
  }
}

async function change(context: AttackContext, id: string, json: object): Promise<string[]> {
  const status = await send(context, "PATCH", `/admin/users/${id}`, context.accounts.admins[0]?.token ?? "", json);
  return status === 200 ? [] : [`PATCH /admin/users/{id} ${JSON.stringify(json)} responds ${status}`];
}

/** Disabling and demoting an account must take effect in every process. The service's own tests cover open streams. */
export const accounts: readonly Check[] = [
  {
    row: "46",
    name: "a disabled account and a demoted admin",
    check: async (context) => {
      const account = context.accounts.attackers.at(-1);
      const demoted = context.accounts.admins[1];
      if (account === undefined || demoted === undefined) return ["there is no account to disable"];
      return [
        ...(await change(context, account.id, { disabled: true })),
        ...(await becomes(context, 401, "/me", account.token)),
        ...(await change(context, demoted.id, { role: "user" })),
        ...(await becomes(context, 403, "/admin/nodes", demoted.token)),
      ];
    },
  },
];
