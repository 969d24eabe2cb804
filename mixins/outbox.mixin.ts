import type { Service, ServiceSchema } from "moleculer";
import type { SchemaFor } from "../broker/contract";
import { canDeliver, isConnected } from "../broker/listeners";
import { metricsOf, type Reading } from "../broker/metrics";
import { withRequest } from "../broker/request";
import { NIL_ID } from "../contracts/contract";
import type { WithDatabase } from "./database.mixin";
import { backlog, claim, deleteSettled, makeDue, type Announcement, type Backlog, type OutboxLimits, type Room } from "./outbox";

/** What a service with this mixin has. */
export interface WithOutbox {
  /** Rows may be due: emits them soon. Called after every commit that wrote some. Never fails and never waits. */
  relay(): void;
  /** For rows that are claimed as they are written; none may be while nobody can be reached. */
  room(): Room;
  /** Emits rows that were claimed as they were written, soon. Never fails and never waits. */
  announce(claimed: readonly Announcement[]): void;
  /** Answers came in: where too many were outstanding, there is room again. */
  relayHeldBack(): void;
}

interface RelayState {
  timer?: NodeJS.Timeout;
  retention?: NodeJS.Timeout;
  running?: Promise<void> | undefined;
  again: boolean;
  isHeldBack: boolean;
  /** Of large rows and of the others: the user who had the last turn. */
  turns: { large: string; others: string };
  reachable: boolean;
}

type Relay = Service &
  WithDatabase &
  WithOutbox & {
    relayState: RelayState;
    emitDue(): Promise<void>;
    forgetSettled(): Promise<void>;
    emitRows(rows: readonly Announcement[]): Promise<void>;
    reconsider(): Promise<void>;
  };

/** An idle node asks its database once a second, so that rows of a node that died are found. */
const SWEEP_MS = 1_000;
const RETENTION_MS = 3_600_000;

/**
 * The relay of a transactional outbox: emits what has been committed, again and again, until an answer settles it.
 * `emit` proves nothing, for events get lost with the node or the connection that carries them. Safe on any number of
 * nodes side by side.
 * @param events those that are relayed; while nobody listens to one, nothing is claimed
 */
export function outboxMixin(events: readonly string[], limits: OutboxLimits): Partial<ServiceSchema> {
  const schema: Omit<SchemaFor<Relay>, "name"> = {
    created(this: Relay) {
      this.relayState = { again: false, isHeldBack: false, turns: { large: NIL_ID, others: NIL_ID }, reachable: false };
    },

    started(this: Relay) {
      this.relayState.timer = setInterval(
        () => {
          this.relay();
        },
        Math.min(SWEEP_MS, limits.retryMs),
      );
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
        const state = this.relayState;
        state.again = true;
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

      room(this: Relay): Room {
        const reachable = events.every((event) => canDeliver(this.broker, event));
        return { outstanding: reachable ? limits.outstanding : 0, retryMs: limits.retryMs };
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
          do deleted = await deleteSettled(this.db);
          while (deleted > 0 && !this.broker.stopping);
        } catch (error) {
          this.logger.warn("old settled announcements could not be deleted, tried again later:", error);
        }
      },

      relayHeldBack(this: Relay) {
        if (this.relayState.isHeldBack) this.relay();
      },

      async emitDue(this: Relay) {
        const state = this.relayState;
        while (state.again && events.every((event) => canDeliver(this.broker, event))) {
          state.again = false;
          let isHeldBack = false;
          for (const kind of ["others", "large"] as const) {
            const claimed = await claim(this.db, limits, kind === "large", state.turns[kind]);
            state.turns[kind] = claimed.turn;
            isHeldBack ||= claimed.isHeldBack;
            this.announce(claimed.rows); // not waited for: listeners in the same process would hold up what waits behind them
            if (claimed.rows.length === limits.batch || claimed.isMore) state.again = true;
          }
          state.isHeldBack = isHeldBack;
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
        await makeDue(this.db);
        state.reachable = true;
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
