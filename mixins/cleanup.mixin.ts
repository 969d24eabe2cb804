import type { Service, ServiceSchema } from "moleculer";
import type { SchemaFor } from "../broker/contract";
import type { Database } from "./database";
import type { WithDatabase } from "./database.mixin";

type Cleanup = Service &
  WithDatabase & {
    cleanupTimer: NodeJS.Timeout | undefined;
    cleanUp(): Promise<void>;
  };

const INTERVAL_MS = 3_600_000;

/**
 * Deletes a service's expired rows when it starts, and hourly. Nodes may do so at the same time. Needs the database mixin.
 * @param all each deletes one batch of rows, and returns whether there may be more
 */
export function cleanupMixin(...all: ((db: Database) => Promise<boolean>)[]): Partial<ServiceSchema> {
  const schema: Omit<SchemaFor<Cleanup>, "name"> = {
    started(this: Cleanup) {
      this.cleanupTimer = setInterval(() => void this.cleanUp(), INTERVAL_MS).unref();
      void this.cleanUp();
    },

    stopped(this: Cleanup) {
      clearInterval(this.cleanupTimer);
    },

    methods: {
      async cleanUp(this: Cleanup): Promise<void> {
        for (const deleteBatch of all)
          try {
            while (await deleteBatch(this.db)) if (this.broker.stopping) return;
          } catch (error) {
            this.logger.warn("expired rows could not be deleted; the next attempt is in an hour:", error);
          }
      },
    },
  };
  return schema as unknown as Partial<ServiceSchema>; // mixins are declared for a plain `this`
}
