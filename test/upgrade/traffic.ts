import { SERVICES } from "../../config";
import type { System } from "../../testkit/system/system";

/** Names of the two deployments, which are part of their node ids. */
export const OLD = "old";
export const NEW = "new";
type Version = typeof OLD | typeof NEW;

const other = (version: Version): Version => (version === OLD ? NEW : OLD);
const SENDER = new RegExp(`^(\\w+)-(${OLD}|${NEW})\\.\\d+$`);

/** Actions and events that nodes have handled for each other, by sending service and by version of sender and receiver. */
export class Traffic {
  private readonly seen = new Set<string>();

  /** @param from id of a node; nodes outside of them, such as the harness itself, don't count */
  note(what: string, from: string, to: Version): void {
    const [, service, version] = SENDER.exec(from) ?? [];
    if (service === undefined) return;
    for (const sender of [service, "any"]) this.seen.add(`${sender} ${what} ${version ?? ""} ${to}`);
  }

  /**
   * Every action and event of both versions must have gone in both directions, in total and per sending service. New ones must have been used.
   * @returns the violations
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

/** The actions and events that the running nodes offer to others. */
export const offeredNames = (system: System, services: readonly string[] = SERVICES): Promise<Set<string>> =>
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
    [...services],
  );
