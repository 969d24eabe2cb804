import { Type, type Static } from "@sinclair/typebox";

/*
 * Messages between the harness and its preload in each node (probe.ts).
 */

/** A node has handled an action or event from another node for the first time. */
export const HandledMessage = Type.Object({ what: Type.String(), from: Type.String() });
export type HandledMessage = Static<typeof HandledMessage>;

/** Asks a node to make a call. */
export interface CallRequest {
  readonly number: number;
  readonly action: string;
  readonly params: unknown;
  readonly meta: Record<string, unknown>;
}

/** The outcome of the call. */
export const CallResult = Type.Object({
  number: Type.Integer(),
  result: Type.Optional(Type.Unknown()),
  error: Type.Optional(Type.String()),
});
export type CallResult = Static<typeof CallResult>;
