type Kind = "schemas" | "responses" | "examples" | "headers";

/** A reference to a component. It has no other fields: tools disagree on what these would mean. */
export type Reference = Readonly<Record<"$ref", string>>;

/** The parts of a document that operations share. Each is added when something refers to it, so that none is unused. */
export class Components {
  readonly all: Readonly<Record<Kind, Record<string, object>>> = { schemas: {}, responses: {}, examples: {}, headers: {} };

  /** @throws if another component has this name */
  refer(kind: Kind, name: string, component: object): Reference {
    const known = (this.all[kind][name] ??= component);
    if (JSON.stringify(known) !== JSON.stringify(component)) throw new Error(`two ${kind} of the OpenAPI document are called ${name}`);
    return { $ref: `#/components/${kind}/${name}` };
  }
}
