import type { Service, ServiceSchema } from "moleculer";
import type { SchemaFor } from "../broker/contract";
import { canDeliver, isConnected } from "../broker/listeners";
import { metricsOf, type Reading } from "../broker/metrics";
import { withRequest } from "../broker/request";
import { NIL_ID } from "../contracts/contract";
import type { WithDatabase } from "./database.mixin";
import { backlog, deleteSettled, type Announcement, type Backlog } from "./outbox";
import { claim, probing, steady, type OutboxLimits, type Pace, type Queue, type Room } from "./outbox.claim";
import { makeDue, watchReplies } from "./outbox.replies";

/** What a service with this mixin has. */
export interface WithOutbox {
  /** Rows may be due: emits them soon. Called after every commit that wrote some. Never fails and never waits. */
  relay(): void;
  /** For rows of an event that are claimed as they are written; none may be while nobody can be reached. */
  room(event: string): Room;
  /** Emits rows that were claimed as they were written, soon. Never fails and never waits. */
  announce(claimed: readonly Announcement[]): void;
  /** Replies came in: where too many rows were in flight there is room again, and where nothing replied something does. */
  relayHeldBack(): void;
}

interface Line extends Queue {
  /** The user who had the last turn. */
  turn: string;
  /** Rows wait for replies to others. */
  isHeldBack: boolean;
}

interface RelayState {
  timer?: NodeJS.Timeout;
  retention?: NodeJS.Timeout;
  running?: Promise<void> | undefined;
  /** What is to be looked at: every line, or those where rows were held back. */
  next: "all" | "held back" | undefined;
  lines: Line[];
  /** Whether it is time to look for replies. */
  isWatchDue: boolean;
  /** The events that nothing replied to when this node looked. */
  silent: ReadonlySet<string>;
  reachable: boolean;
}

type Relay = Service &
  WithDatabase &
  WithOutbox & {
    relayState: RelayState;
    wake(next: "all" | "held back"): void;
    paceOf(event: string): Pace;
    watch(): Promise<boolean>;
    emitDue(): Promise<void>;
    forgetSettled(): Promise<void>;
    emitRows(rows: readonly Announcement[]): Promise<void>;
    reconsider(): Promise<void>;
  };

/** An idle node asks its database once a second, so that rows of a node that died are found; while nothing replies, one probe goes out. */
const SWEEP_MS = 1_000;
const RETENTION_MS = 3_600_000;

/**
 * The relay of a transactional outbox: emits what has been committed, again and again, until an answer settles it.
 * `emit` proves nothing, for events get lost with the node or the connection that carries them. Safe on any number of
 * nodes side by side.
 * @param events those that are relayed; while nobody listens to one, nothing is claimed
 */
export function outboxMixin(events: readonly string[], limits: OutboxLimits): Partial<ServiceSchema> {
  const sweepMs = Math.min(SWEEP_MS, limits.retryMs);
  const [usual, slow] = [steady(limits), probing(limits, sweepMs)];
  const schema: Omit<SchemaFor<Relay>, "name"> = {
    created(this: Relay) {
      const lines = events.flatMap((event) => [false, true].map((large) => ({ event, large, turn: NIL_ID, isHeldBack: false })));
      this.relayState = { next: undefined, lines, isWatchDue: true, silent: new Set(), reachable: false };
    },

    started(this: Relay) {
      this.relayState.timer = setInterval(() => {
        this.relayState.isWatchDue = true;
        this.relay();
      }, sweepMs);
      this.relayState.retention = setInterval(() => void this.forgetSettled(), RETENTION_MS);
      void this.forgetSettled();
      metricsOf(this.broker)?.ask("outbox", async () => readings(await backlog(this.db)));
      return this.reconsider();
    },

    async stopped(this: Relay) {
      clearInterval(this.relayState.timer);
      clearInterval(this.relayState.retention);
      delete this.relayState.timer;
      await this.relayState.running;
    },

    events: {
      // Somebody listens again, or the transporter is back: what was emitted before is lost, ask again at once.
      async "$services.changed"(this: Relay) {
        await this.reconsider();
      },
      // What was on its way to that node, or from it, is lost with it; another one may be there still.
      async "$node.disconnected"(this: Relay) {
        this.relayState.reachable = false;
        await this.reconsider();
      },
      async "$transporter.connected"(this: Relay) {
        this.relayState.reachable = false;
        await this.reconsider();
      },
    },

    methods: {
      relay(this: Relay) {
        this.wake("all");
      },

      relayHeldBack(this: Relay) {
        const state = this.relayState;
        if (state.silent.size > 0) state.isWatchDue = true;
        if (state.lines.some((line) => line.isHeldBack)) this.wake("held back");
      },

      wake(this: Relay, next: "all" | "held back") {
        const state = this.relayState;
        if (state.next !== "all") state.next = next;
        if (state.running !== undefined || state.timer === undefined) return;
        // It works for all that wait, whoever's request has called it.
        state.running = withRequest(undefined, Infinity, () => this.emitDue())
          .catch((error: unknown) => {
            this.logger.warn("the relay failed, the next sweep tries again:", error);
          })
          .finally(() => {
            state.running = undefined;
          });
      },

      paceOf(this: Relay, event: string): Pace {
        return this.relayState.silent.has(event) ? slow : usual;
      },

      room(this: Relay, event: string): Room {
        const reachable = events.every((one) => canDeliver(this.broker, one));
        return reachable ? this.paceOf(event) : { ...usual, outstanding: 0 };
      },

      announce(this: Relay, claimed: readonly Announcement[]) {
        if (claimed.length === 0) return;
        this.emitRows(claimed).catch((error: unknown) => {
          this.logger.warn("announcements could not be emitted, they are asked again:", error);
        });
      },

      async forgetSettled(this: Relay) {
        try {
          let deleted: number;
          do deleted = await deleteSettled(this.db, events);
          while (deleted > 0 && !this.broker.stopping);
        } catch (error) {
          this.logger.warn("old settled announcements could not be deleted, tried again later:", error);
        }
      },

      /** Looks for replies once in a sweep, and as soon as one comes where nothing replied. @returns whether it was time to */
      async watch(this: Relay): Promise<boolean> {
        const state = this.relayState;
        if (!state.isWatchDue) return false;
        const before = state.silent;
        state.silent = await watchReplies(this.db, events, { patienceMs: limits.retryMs / 2, overdueMs: limits.retryMs });
        state.isWatchDue = false;
        for (const event of events) {
          const isSilent = state.silent.has(event);
          if (isSilent && !before.has(event))
            this.logger.warn(`nothing replies to ${event}: it is sent once a second until something does`);
          if (!isSilent && before.has(event)) this.logger.info(`there are replies to ${event} again`);
        }
        return true;
      },

      async emitDue(this: Relay) {
        const state = this.relayState;
        while (state.next !== undefined && events.every((event) => canDeliver(this.broker, event))) {
          const isWatched = await this.watch();
          const isAll = state.next === "all";
          state.next = undefined;
          for (const line of state.lines) {
            if (!isAll && !line.isHeldBack) continue;
            const pace = this.paceOf(line.event);
            line.isHeldBack ||= pace.isProbing;
            if (pace.isProbing && !isWatched) continue; // not before the next sweep, however many orders come
            const claimed = await claim(this.db, pace, line, line.turn);
            const isMore = claimed.rows.length === pace.batch || claimed.isMore;
            line.turn = claimed.turn;
            line.isHeldBack = claimed.isHeldBack || isMore || pace.isProbing;
            this.announce(claimed.rows); // not waited for: listeners in the same process would hold up what waits behind them
            if (isMore && !pace.isProbing) state.next ??= "held back";
          }
        }
      },

      async emitRows(this: Relay, rows: readonly Announcement[]) {
        // Side by side: where listeners are in the same process, an event waits until they have ended.
        await Promise.all(
          events.map(async (event) => {
            // The ids come from their columns: a payload that is broken can still be refused and parked.
            const orders = rows
              .filter((row) => row.event === event)
              .map(({ payload, order_id, user_id }) => ({ ...payload, order_id, user_id }));
            if (orders.length > 0) await this.broker.emit(event, { orders });
          }),
        );
      },

      /** When listeners have come (back), everything unanswered falls due. */
      async reconsider(this: Relay) {
        const state = this.relayState;
        if (state.timer === undefined) return; // not started: what is heard now must not count as known then
        const reachable = isConnected(this.broker) && events.every((event) => canDeliver(this.broker, event));
        const back = reachable && !state.reachable;
        state.reachable = reachable && !back;
        if (!back) return;
        await makeDue(this.db, events);
        state.reachable = true;
        state.isWatchDue = true;
        this.relay();
      },
    },
  };
  return schema as unknown as Partial<ServiceSchema>; // mixins are declared for a plain `this`
}

const readings = ({ pending, parked, oldest }: Backlog): Reading[] => [
  { name: "shop_outbox_pending", help: "Announcements without an answer, counted up to 100,000", value: pending },
  { name: "shop_outbox_parked", help: "Announcements that were given up", value: parked },
  { name: "shop_outbox_oldest_pending_seconds", help: "Age of the oldest announcement without an answer; 0 without one", value: oldest },
];
