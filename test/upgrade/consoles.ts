import type { SystemNode } from "../../testkit/system/node";
import { eventually } from "../../testkit/until";
import type { CallRequest, CallResult } from "./messages";

const PATIENCE_MS = 10_000;

/** Lets nodes make calls, as an operator does in their console. */
export class Consoles {
  private calls = 0;
  private readonly outcomes = new Map<number, CallResult>();

  receive(outcome: CallResult): void {
    this.outcomes.set(outcome.number, outcome);
  }

  /** @returns the result of the call @throws if it fails or times out */
  async call(node: SystemNode, action: string, params: object, meta: CallRequest["meta"] = { system: true }): Promise<unknown> {
    const number = ++this.calls;
    node.send({ number, action, params, meta } satisfies CallRequest);
    await eventually(`${action} has returned`, () => this.outcomes.has(number), PATIENCE_MS, 10);
    const { result, error } = this.outcomes.get(number) ?? {};
    this.outcomes.delete(number);
    if (error !== undefined) throw new Error(`${action}, called in a console: ${error}`);
    return result;
  }
}
