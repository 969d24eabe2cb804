import { cp } from "node:fs/promises";
import { databaseNames } from "../config";

/** The last step of `npm run build`: copies the SQL files, which tsc does not. */
void Promise.all(
  databaseNames().map(([service]) => cp(`services/${service}/migrations`, `dist/services/${service}/migrations`, { recursive: true })),
);
