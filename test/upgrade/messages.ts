import { Type, type Static } from "@sinclair/typebox";

/*
 * What the harness and its preload in each node (witness.ts) tell each other.
 */

/** An action or event that a node has handled for the first time for that other node. */
export const Sighting = Type.Object({ what: Type.String(), from: Type.String() });
export type Sighting = Static<typeof Sighting>;

/** To a node: a call that it shall make. */
export interface Wish {
  readonly number: number;
  readonly action: string;
  readonly params: unknown;
  readonly meta: Record<string, unknown>;
}

/** What became of it. */
export const Outcome = Type.Object({ number: Type.Integer(), result: Type.Optional(Type.Unknown()), error: Type.Optional(Type.String()) });
export type Outcome = Static<typeof Outcome>;
