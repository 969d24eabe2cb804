import type { ReplOptions, ServiceBroker } from "moleculer";
import { asSystem, call } from "../broker/contract";
import { errorCode, invalid } from "../broker/errors";
import { check } from "../broker/validator";
import type { ActionContract, Params, Result } from "../contracts/contract";
import { outbox, repair, replay } from "../contracts/orders";

type CustomCommand = NonNullable<ReplOptions["customCommands"]>[number];

/** What moleculer-repl really hands to a command; its declaration says `string[]`. */
interface Input {
  options: { state?: string; limit?: string; apply?: boolean };
  id?: string;
}

interface Helpers {
  table: (rows: string[][]) => string;
}

type Run = (broker: ServiceBroker, input: Input, helpers: Helpers) => Promise<string>;

const HEAD = ["id", "order", "event", "state", "attempts", "next attempt", "last error"];

/** What the console knows beyond Moleculer's own: the announcements that wait for an answer, and repairs. Type `help outbox` in it. */
export const COMMANDS: readonly CustomCommand[] = [
  command(
    "outbox",
    "Lists the announcements that wait, and those that were given up",
    async (broker, { options: { state, limit } }, { table }) => {
      const params = { ...(state !== undefined && { state }), ...(limit !== undefined && { limit: Number(limit) }) };
      const { items, next_cursor } = await ask(broker, outbox, params);
      if (items.length === 0) return "None.";
      const rows = items.map((row) => [
        String(row.id),
        row.order_id,
        row.event,
        row.state,
        String(row.attempts),
        row.state === "PENDING" ? row.next_attempt_at : "-",
        row.last_error ?? "-",
      ]);
      return table([HEAD, ...rows]) + (next_cursor === null ? "" : `The oldest ${items.length}; there are more: see --limit.`);
    },
    [
      { option: "--state <states>", description: "some of pending,parked,settled; pending,parked where not said" },
      { option: "--limit <rows>", description: "at most so many, up to 100; 20 where not said" },
    ],
  ),
  command("replay <id>", "Makes a parked announcement new again", async (broker, { id }) => {
    await ask(broker, replay, { id: Number(id) });
    return `Announcement ${id ?? ""} is asked again.`;
  }),
  command(
    "repair",
    "Says what would mend orders and reservations that differ, since a backup was restored",
    async (broker, { options: { apply = false } }, { table }) => {
      const { repairs, decisions, undecided, more } = await ask(broker, repair, { apply });
      if (repairs.length + decisions.length === 0) return "Nothing differs.";
      const rows = [...repairs, ...decisions.map((decision) => ({ ...decision, action: "for a person" }))];
      const rest = more || undecided > decisions.length ? "There are more: type it again." : "";
      return (
        table([["order", apply ? "done" : "to do", "why"], ...rows.map(({ order_id, action, what }) => [order_id, action, what])]) + rest
      );
    },
    [{ option: "--apply", description: "does it" }],
  ),
];

export const REPL: ReplOptions = { customCommands: [...COMMANDS] };

/** A command says its answer, or why there is none. */
function command(declaration: string, description: string, answer: Run, options: CustomCommand["options"] = []): CustomCommand {
  const action = async (broker: ServiceBroker, input: Input, helpers: Helpers): Promise<void> => {
    console.log(await answer(broker, input, helpers).catch(refusal));
  };
  return { command: declaration, description, options, action: action as unknown as CustomCommand["action"] };
}

/** What was typed is checked here, since a call's error keeps to itself which field is wrong. */
async function ask<C extends ActionContract>(broker: ServiceBroker, contract: C, params: Params<C>): Promise<Result<C>> {
  const [wrong] = check(contract.params, params);
  if (wrong !== undefined) throw invalid(wrong.field, wrong.message);
  return call(broker, contract, params, asSystem());
}

const refusal = (error: unknown): string => `${errorCode(error)}: ${error instanceof Error ? error.message : String(error)}`;
