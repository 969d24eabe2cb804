import type { Service, ServiceSchema } from "moleculer";
import type { SchemaFor } from "../broker/contract";
import { canDeliver, isConnected } from "../broker/listeners";
import { metricsOf, type Reading } from "../broker/metrics";
import { withRequest } from "../broker/request";
import { NIL_ID, type OutboxedEvent } from "../contracts/contract";
import type { WithDatabase } from "./database.mixin";
import { backlog, deleteSettled, type OutboxMessage, type Backlog } from "./outbox";
import { claim, probing, steady, type OutboxLimits, type Pace, type Queue, type InFlightCap } from "./outbox.claim";
import { makeDue, watchReplies } from "./outbox.replies";

/** What this mixin adds to a service. */
export interface WithOutbox {
  /** Publishes pending rows soon. To be called after every commit that wrote some. Never throws and never blocks. */
  relay(): void;
  /** For an insert that claims the rows of an event which it writes. It may claim none while the event's replier is unreachable. */
  inFlightCap(event: OutboxedEvent): InFlightCap;
  /** Publishes rows that an insert has claimed, soon. Never throws and never blocks. */
  publish(claimed: readonly OutboxMessage[]): void;
  /** To be called when replies have arrived: publishes the rows that the cap held back, and ends probing. */
  relayHeldBack(): void;
}

interface EventQueue extends Queue {
  of: OutboxedEvent;
  /** The user who had the last turn. */
  turn: string;
  /** Rows are left that must wait until replies free some of the cap, or until the next probe. */
  isHeldBack: boolean;
}

interface RelayState {
  timer?: NodeJS.Timeout;
  retention?: NodeJS.Timeout;
  running?: Promise<void> | undefined;
  /** Which queues to look at next: all, or those with rows held back. */
  next: "all" | "held back" | undefined;
  queues: EventQueue[];
  /** Whether it is time to look for replies. */
  isWatchDue: boolean;
  /** The events that had no replies when this node last looked. */
  silent: ReadonlySet<string>;
  /** The events whose replier was reachable when this node last looked. */
  reachable: ReadonlySet<string>;
}

type Relay = Service &
  WithDatabase &
  WithOutbox & {
    relayState: RelayState;
    wake(next: "all" | "held back"): void;
    paceOf(event: string): Pace;
    isReachable(event: OutboxedEvent): boolean;
    watch(): Promise<boolean>;
    publishDue(): Promise<void>;
    deleteSettled(): Promise<void>;
    publishRows(rows: readonly OutboxMessage[]): Promise<void>;
    retryForReturnedRepliers(): Promise<void>;
  };

/** An idle node polls its database once per second, to find the rows of a node that died. While nothing replies, each sweep sends one probe. */
const SWEEP_MS = 1_000;
const RETENTION_MS = 3_600_000;

/**
 * The relay of a transactional outbox: publishes committed rows, and republishes each until a reply settles it. A successful `emit` proves
 * nothing, since events are lost with the node or the connection that carries them. Safe on any number of nodes in parallel.
 * @param events the events to relay; rows of an event are claimed while its replier is reachable
 */
export function outboxMixin(events: readonly OutboxedEvent[], limits: OutboxLimits): Partial<ServiceSchema> {
  const names = events.map(({ name }) => name);
  const sweepMs = Math.min(SWEEP_MS, limits.retryMs);
  const [usual, slow] = [steady(limits), probing(limits, sweepMs)];
  const schema: Omit<SchemaFor<Relay>, "name"> = {
    created(this: Relay) {
      const queues = events.flatMap((event) =>
        [false, true].map((large) => ({ of: event, event: event.name, large, turn: NIL_ID, isHeldBack: false })),
      );
      this.relayState = { next: undefined, queues, isWatchDue: true, silent: new Set(), reachable: new Set() };
    },

    started(this: Relay) {
      this.relayState.timer = setInterval(() => {
        this.relayState.isWatchDue = true;
        this.relay();
      }, sweepMs);
      this.relayState.retention = setInterval(() => void this.deleteSettled(), RETENTION_MS);
      void this.deleteSettled();
      metricsOf(this.broker)?.observe("outbox", async () => readings(await backlog(this.db)));
      return this.retryForReturnedRepliers();
    },

    async stopped(this: Relay) {
      clearInterval(this.relayState.timer);
      clearInterval(this.relayState.retention);
      delete this.relayState.timer;
      await this.relayState.running;
    },

    events: {
      // Repliers may be back. What was published before may be lost, so it is republished at once.
      async "$services.changed"(this: Relay) {
        await this.retryForReturnedRepliers();
      },
      // Messages in flight to or from that node are lost. Other nodes may still be replying.
      async "$node.disconnected"(this: Relay) {
        this.relayState.reachable = new Set();
        await this.retryForReturnedRepliers();
      },
      async "$transporter.connected"(this: Relay) {
        this.relayState.reachable = new Set();
        await this.retryForReturnedRepliers();
      },
    },

    methods: {
      relay(this: Relay) {
        this.wake("all");
      },

      relayHeldBack(this: Relay) {
        const state = this.relayState;
        if (state.silent.size > 0) state.isWatchDue = true;
        if (state.queues.some((queue) => queue.isHeldBack)) this.wake("held back");
      },

      wake(this: Relay, next: "all" | "held back") {
        const state = this.relayState;
        if (state.next !== "all") state.next = next;
        if (state.running !== undefined || state.timer === undefined) return;
        // The relay serves all pending rows: it must not inherit the id or the deadline of the request that triggered it.
        state.running = withRequest(undefined, Infinity, () => this.publishDue())
          .catch((error: unknown) => {
            this.logger.warn("the outbox relay failed and will retry at the next sweep:", error);
          })
          .finally(() => {
            state.running = undefined;
          });
      },

      paceOf(this: Relay, event: string): Pace {
        return this.relayState.silent.has(event) ? slow : usual;
      },

      isReachable(this: Relay, { name, repliedBy }: OutboxedEvent): boolean {
        return canDeliver(this.broker, name, repliedBy);
      },

      inFlightCap(this: Relay, event: OutboxedEvent): InFlightCap {
        return this.isReachable(event) ? this.paceOf(event.name) : { ...usual, maxInFlight: 0 };
      },

      publish(this: Relay, claimed: readonly OutboxMessage[]) {
        if (claimed.length === 0) return;
        this.publishRows(claimed).catch((error: unknown) => {
          this.logger.warn("outbox rows could not be published and will be retried:", error);
        });
      },

      async deleteSettled(this: Relay) {
        try {
          let deleted: number;
          do deleted = await deleteSettled(this.db, names);
          while (deleted > 0 && !this.broker.stopping);
        } catch (error) {
          this.logger.warn("old settled outbox rows could not be deleted and will be retried later:", error);
        }
      },

      /** Looks for replies once per sweep, and as soon as one arrives to an event that had none. @returns whether it looked */
      async watch(this: Relay): Promise<boolean> {
        const state = this.relayState;
        if (!state.isWatchDue) return false;
        const before = state.silent;
        state.silent = await watchReplies(this.db, names, { patienceMs: limits.retryMs / 2, overdueMs: limits.retryMs });
        state.isWatchDue = false;
        for (const event of names) {
          const isSilent = state.silent.has(event);
          if (isSilent && !before.has(event)) this.logger.warn(`no replies to ${event}: probing until one arrives`);
          if (!isSilent && before.has(event)) this.logger.info(`replies to ${event} have resumed`);
        }
        return true;
      },

      async publishDue(this: Relay) {
        const state = this.relayState;
        while (state.next !== undefined && events.some((event) => this.isReachable(event))) {
          const isWatched = await this.watch();
          const isAll = state.next === "all";
          state.next = undefined;
          for (const queue of state.queues) {
            if (!this.isReachable(queue.of) || (!isAll && !queue.isHeldBack)) continue;
            const pace = this.paceOf(queue.event);
            queue.isHeldBack ||= pace.isProbing;
            if (pace.isProbing && !isWatched) continue; // one probe per sweep, however many rows are written
            const claimed = await claim(this.db, pace, queue, queue.turn);
            const isMore = claimed.rows.length === pace.batch || claimed.isMore;
            queue.turn = claimed.turn;
            queue.isHeldBack = claimed.isHeldBack || isMore || pace.isProbing;
            this.publish(claimed.rows); // not awaited: listeners in the same process would delay the queues behind this one
            if (isMore && !pace.isProbing) state.next ??= "held back";
          }
        }
      },

      async publishRows(this: Relay, rows: readonly OutboxMessage[]) {
        // In parallel: if the listeners are in the same process, an emit resolves only when they have finished.
        await Promise.all(
          events.map(async ({ name, list, subject: field }) => {
            // The ids come from their columns, so that a row with an invalid payload can still be refused and parked.
            const items = rows
              .filter(({ event }) => event === name)
              .map(({ payload, subject, user_id }) => ({ ...payload, [field]: subject, user_id }));
            if (items.length > 0) await this.broker.emit(name, { [list]: items });
          }),
        );
      },

      /** Makes every published, unsettled row of an event due when its replier appears or returns. */
      async retryForReturnedRepliers(this: Relay) {
        const state = this.relayState;
        if (state.timer === undefined) return; // not started: repliers that are noted now would not count as new at the start
        const reachable = isConnected(this.broker) ? events.filter((event) => this.isReachable(event)).map(({ name }) => name) : [];
        const back = reachable.filter((event) => !state.reachable.has(event));
        state.reachable = new Set(reachable.filter((event) => !back.includes(event)));
        if (back.length === 0) return;
        await makeDue(this.db, back);
        state.reachable = new Set([...state.reachable, ...back]);
        state.isWatchDue = true;
        this.relay();
      },
    },
  };
  return schema as unknown as Partial<ServiceSchema>; // mixins are declared for a plain `this`
}

const readings = ({ pending, parked, oldest }: Backlog): Reading[] => [
  { name: "shop_outbox_pending", help: "Pending outbox rows, counted up to 100,000", value: pending },
  { name: "shop_outbox_parked", help: "Parked outbox rows", value: parked },
  { name: "shop_outbox_oldest_pending_seconds", help: "Age of the oldest pending outbox row; 0 without one", value: oldest },
];
