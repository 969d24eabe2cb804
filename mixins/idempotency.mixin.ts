import type { Service, ServiceSchema } from "moleculer";
import type { SchemaFor } from "../broker/contract";
import type { WithDatabase } from "./database.mixin";
import { forgetResponses } from "./idempotency";

type Sweeper = Service &
  WithDatabase & {
    responseSweep: NodeJS.Timeout | undefined;
    sweepResponses(): Promise<void>;
  };

const SWEEP_MS = 3_600_000;

/** For a service with actions that work `once` (idempotency.ts): deletes their expired responses, hourly. Needs the database mixin. */
export function idempotencyMixin(): Partial<ServiceSchema> {
  const schema: Omit<SchemaFor<Sweeper>, "name"> = {
    started(this: Sweeper) {
      this.responseSweep = setInterval(() => void this.sweepResponses(), SWEEP_MS).unref();
      void this.sweepResponses();
    },

    stopped(this: Sweeper) {
      clearInterval(this.responseSweep);
    },

    methods: {
      async sweepResponses(this: Sweeper): Promise<void> {
        try {
          while (await forgetResponses(this.db)) if (this.broker.stopping) return;
        } catch (error) {
          this.logger.warn("expired responses could not be deleted; the next attempt is in an hour:", error);
        }
      },
    },
  };
  return schema as unknown as Partial<ServiceSchema>; // mixins are declared for a plain `this`
}
