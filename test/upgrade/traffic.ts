import type { System } from "../chaos/system";
import { SERVICES } from "../../config";

/** Names of the two fleets, which are parts of the ids of their nodes. */
export const OLD = "old";
export const NEW = "new";
type Version = typeof OLD | typeof NEW;

const other = (version: Version): Version => (version === OLD ? NEW : OLD);
const SENDER = new RegExp(`^(\\w+)-(${OLD}|${NEW})\\.\\d+$`);

/** What nodes have handled for each other: by which service it was sent, from which version to which. */
export class Traffic {
  private readonly seen = new Set<string>();

  /** @param from id of a node; what comes from none of the fleets, such as the harness itself, does not count */
  note(what: string, from: string, to: Version): void {
    const [, service, version] = SENDER.exec(from) ?? [];
    if (service === undefined) return;
    for (const sender of [service, "any"]) this.seen.add(`${sender} ${what} ${version ?? ""} ${to}`);
  }

  /**
   * Every action and event that both versions have must have gone both ways, and again for each service that has sent it; what is new must have been
   * used at all.
   * @returns what has not
   */
  missing(old: ReadonlySet<string>, now: ReadonlySet<string>): string[] {
    const both = [OLD, NEW] as const;
    const senders = ["any", ...SERVICES];
    const sent = (sender: string, what: string, from: Version): boolean =>
      both.some((to) => this.seen.has(`${sender} ${what} ${from} ${to}`));
    return [...now].sort().flatMap((what) => {
      if (!old.has(what)) return sent("any", what, NEW) ? [] : [`${what} is new, and was never used`];
      return senders.flatMap((sender) =>
        both
          .filter((from) => (sender === "any" || sent(sender, what, from)) && !this.seen.has(`${sender} ${what} ${from} ${other(from)}`))
          .map((from) => `${what} never went from ${from} ${sender === "any" ? "nodes" : sender} to ${other(from)} nodes`),
      );
    });
  }
}

/** Moleculer's own events stay in their node. */
const isSent = (event: string): boolean => !event.startsWith("$");

/** The actions and events that the nodes which run now offer to others. */
export const offered = (system: System): Promise<Set<string>> =>
  system.asNode(
    (broker) => {
      const nodes = broker.registry.getNodeList({ onlyAvailable: true, withServices: true }) as unknown as {
        id: string;
        services: { actions: Record<string, unknown>; events: Record<string, unknown> }[];
      }[];
      const services = nodes.filter(({ id }) => id !== broker.nodeID).flatMap((node) => node.services);
      const names = services.flatMap(({ actions, events }) => [...Object.keys(actions), ...Object.keys(events).filter(isSent)]);
      return Promise.resolve(new Set(names));
    },
    [...SERVICES],
  );
