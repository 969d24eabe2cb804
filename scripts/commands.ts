import type { ReplOptions, ServiceBroker } from "moleculer";
import { asSystem, call } from "../broker/contract";
import { errorCode, invalid } from "../broker/errors";
import { check } from "../broker/validator";
import type { ActionContract, Params, Result } from "../contracts/contract";
import { outbox, repair, replay } from "../contracts/orders";

type CustomCommand = NonNullable<ReplOptions["customCommands"]>[number];

/** What moleculer-repl actually passes to a command; its types declare `string[]`. */
interface Input {
  options: { state?: string; limit?: string; apply?: boolean };
  id?: string;
}

interface Helpers {
  table: (rows: string[][]) => string;
}

type Run = (broker: ServiceBroker, input: Input, helpers: Helpers) => Promise<string>;

const HEAD = ["id", "order", "event", "state", "attempts", "next attempt", "last error"];

/** Console commands in addition to Moleculer's: for the outbox and repairs. Type `help outbox` in the console. */
export const COMMANDS: readonly CustomCommand[] = [
  command(
    "outbox",
    "Lists pending and parked outbox rows",
    async (broker, { options: { state, limit } }, { table }) => {
      const params = { ...(state !== undefined && { state }), ...(limit !== undefined && { limit: Number(limit) }) };
      const { items, next_cursor } = await callAction(broker, outbox, params);
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
      { option: "--state <states>", description: "any of pending,parked,settled; default: pending,parked" },
      { option: "--limit <rows>", description: "maximum rows, up to 100; default: 20" },
    ],
  ),
  command("replay <id>", "Makes a parked outbox row pending again", async (broker, { id }) => {
    await callAction(broker, replay, { id: Number(id) });
    return `Outbox row ${id ?? ""} is pending again.`;
  }),
  command(
    "repair",
    "Shows how to repair orders and reservations that differ after a backup was restored",
    async (broker, { options: { apply = false } }, { table }) => {
      const { repairs, decisions, undecided, more } = await callAction(broker, repair, { apply });
      if (repairs.length + decisions.length === 0) return "Nothing differs.";
      const rows = [...repairs, ...decisions.map((decision) => ({ ...decision, action: "manual decision" }))];
      const rest = more || undecided > decisions.length ? "There are more: repeat the command." : "";
      return (
        table([["order", apply ? "done" : "to do", "why"], ...rows.map(({ order_id, action, what }) => [order_id, action, what])]) + rest
      );
    },
    [{ option: "--apply", description: "makes the repairs" }],
  ),
];

export const REPL: ReplOptions = { customCommands: [...COMMANDS] };

/** A command that prints its result, or its error. */
function command(declaration: string, description: string, run: Run, options: CustomCommand["options"] = []): CustomCommand {
  const action = async (broker: ServiceBroker, input: Input, helpers: Helpers): Promise<void> => {
    console.log(await run(broker, input, helpers).catch(refusal));
  };
  return { command: declaration, description, options, action: action as unknown as CustomCommand["action"] };
}

/** Validates the input here, since a call's error message does not name the invalid field. */
async function callAction<C extends ActionContract>(broker: ServiceBroker, contract: C, params: Params<C>): Promise<Result<C>> {
  const [wrong] = check(contract.params, params);
  if (wrong !== undefined) throw invalid(wrong.field, wrong.message);
  return call(broker, contract, params, asSystem());
}

const refusal = (error: unknown): string => `${errorCode(error)}: ${error instanceof Error ? error.message : String(error)}`;
