import { inspect } from "node:util";
import { ConfigError, loadConfig, type Config } from "../config";
import { MigrationRefused } from "../mixins/migrations";

type LogFormat = Config["log"]["format"];

/** Stops what a script has started. */
type Stop = () => Promise<void>;

/**
 * Runs a script with the configuration, stops it on SIGTERM, SIGINT and SIGHUP (its terminal was closed), and sets the exit code.
 * @param main returns an exit code when done, or undefined if what it started continues to run. Passes a function that stops it to
 *   `onStop` as soon as there is something to stop: with an unavailable database, a start may take for ever.
 * @param isNode whether the output is the log of a node, in the format of LOG_FORMAT
 */
export function run(main: (config: Config, onStop: (stop: Stop) => void) => Promise<number | undefined>, isNode = false): void {
  let stop: Stop | undefined;
  let stopping = false;
  let format: LogFormat = "short";
  const fail = (error: unknown): never => {
    const isExpected = error instanceof ConfigError || error instanceof MigrationRefused;
    const message = isExpected ? error.message : inspect(error);
    if (error instanceof ConfigError) format = error.logFormat;
    console.error(isNode && format === "json" ? JSON.stringify({ time: new Date().toISOString(), level: "fatal", message }) : message);
    process.exit(1);
  };
  const leave = (): void => {
    if (stopping) return; // Ctrl-C reaches us from the terminal and from npm
    stopping = true;
    (stop?.() ?? Promise.resolve()).then(() => process.exit(0), fail);
  };
  process.on("uncaughtException", fail); // also for a rejection that nothing handles
  for (const signal of ["SIGTERM", "SIGINT", "SIGHUP"] as const) process.on(signal, leave);

  Promise.resolve()
    .then(() => {
      const config = loadConfig();
      format = config.log.format;
      return main(config, (how) => (stop = how));
    })
    .then(
      (code) => {
        if (code !== undefined && !stopping) process.exit(code);
      },
      (error: unknown) => {
        if (!stopping) fail(error);
      },
    );
}
