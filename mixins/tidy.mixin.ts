import type { Service, ServiceSchema } from "moleculer";
import type { SchemaFor } from "../broker/contract";
import type { Database } from "./database";
import type { WithDatabase } from "./database.mixin";

type Tidy = Service &
  WithDatabase & {
    tidying: NodeJS.Timeout | undefined;
    tidy(): Promise<void>;
  };

const INTERVAL_MS = 3_600_000;

/**
 * Deletes a service's expired rows when it starts, and hourly. Nodes may do so at the same time. Needs the database mixin.
 * @param all each deletes one batch of rows, and returns whether there may be more
 */
export function tidyMixin(...all: ((db: Database) => Promise<boolean>)[]): Partial<ServiceSchema> {
  const schema: Omit<SchemaFor<Tidy>, "name"> = {
    started(this: Tidy) {
      this.tidying = setInterval(() => void this.tidy(), INTERVAL_MS).unref();
      void this.tidy();
    },

    stopped(this: Tidy) {
      clearInterval(this.tidying);
    },

    methods: {
      async tidy(this: Tidy): Promise<void> {
        for (const forget of all)
          try {
            while (await forget(this.db)) if (this.broker.stopping) return;
          } catch (error) {
            this.logger.warn("expired rows could not be deleted; the next attempt is in an hour:", error);
          }
      },
    },
  };
  return schema as unknown as Partial<ServiceSchema>; // mixins are declared for a plain `this`
}
