import { ConfigError, loadConfig, type Config } from "../config";
import { MigrationRefused } from "../mixins/migrations";

/** Stops what a script has started. */
export type Stop = () => Promise<void>;

/**
 * Runs a script with the configuration, stops it on SIGTERM and SIGINT, and sets the exit code.
 * @param main returns an exit code when done, or undefined if what it started continues to run. Passes a function that stops it to
 *   `onStop` as soon as there is something to stop: with an unavailable database, a start may take for ever.
 */
export function run(main: (config: Config, onStop: (stop: Stop) => void) => Promise<number | undefined>): void {
  let stop: Stop | undefined;
  let stopping = false;
  const leave = (): void => {
    if (stopping) return; // Ctrl-C reaches us from the terminal and from npm
    stopping = true;
    (stop?.() ?? Promise.resolve()).then(() => process.exit(0), fail);
  };
  process.on("SIGTERM", leave);
  process.on("SIGINT", leave);

  Promise.resolve()
    .then(() => main(loadConfig(), (how) => (stop = how)))
    .then(
      (code) => {
        if (code !== undefined && !stopping) process.exit(code);
      },
      (error: unknown) => {
        if (!stopping) fail(error);
      },
    );
}

function fail(error: unknown): never {
  const isForPeople = error instanceof ConfigError || error instanceof MigrationRefused;
  console.error(isForPeople ? error.message : error);
  process.exit(1);
}
