import { cp } from "node:fs/promises";
import { databaseNames } from "../config";

/** The last step of `npm run build`: the SQL that tsc does not copy. */
void Promise.all(
  databaseNames().map(([service]) => cp(`services/${service}/migrations`, `dist/services/${service}/migrations`, { recursive: true })),
);
