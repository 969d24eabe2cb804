import { Type, type Static } from "@sinclair/typebox";

/*
 * Messages between the harness and its preload in each node (witness.ts).
 */

/** A node has handled an action or event from another node for the first time. */
export const Sighting = Type.Object({ what: Type.String(), from: Type.String() });
export type Sighting = Static<typeof Sighting>;

/** Asks a node to make a call. */
export interface Wish {
  readonly number: number;
  readonly action: string;
  readonly params: unknown;
  readonly meta: Record<string, unknown>;
}

/** The outcome of the call. */
export const Outcome = Type.Object({ number: Type.Integer(), result: Type.Optional(Type.Unknown()), error: Type.Optional(Type.String()) });
export type Outcome = Static<typeof Outcome>;
