import { inspect } from "node:util";
import type { BrokerOptions, LoggerConfig, Service } from "moleculer";
import { errorCode } from "./errors";
import { currentRequestId, withRequestId } from "./request";

const logged = new WeakSet<Error>();

/**
 * Logs an error once, with its cause and request id.
 * @param skipsRefusals false for events: an event has no caller who would receive an expected refusal
 */
export function logFailure(
  log: Service["logger"],
  what: string,
  error: unknown,
  requestId: string | undefined,
  skipsRefusals = true,
): void {
  if (!(error instanceof Error) || logged.has(error)) return;
  const isOurFault = errorCode(error) === "INTERNAL_ERROR";
  if (skipsRefusals && !isOurFault && error.cause === undefined) return;
  logged.add(error);
  withRequestId(requestId, () => {
    log[isOurFault ? "error" : "warn"](`${what} failed:`, error);
  });
}

/**
 * The broker's error handler. Logs every error that is not an expected refusal once, on the node where it occurred, with its cause and
 * request id. A failed event handler is only logged: there is no caller to fail, and the event is republished.
 */
export const logUnexpected: NonNullable<BrokerOptions["errorHandler"]> = function (error, info) {
  const isElsewhere = "nodeID" in error && error.nodeID !== this.nodeID;
  const isEvent = "event" in info;
  const ctx = "ctx" in info ? info.ctx : undefined;
  const what = isEvent ? ctx?.eventName : ctx?.action?.name;
  // Health checks and operations views poll: a service that is unavailable for a while would fill the log.
  const isReported = /\.(health|activity)$/.test(what ?? "") && errorCode(error) !== "INTERNAL_ERROR";
  if (!isElsewhere && !isReported) logFailure(this.logger, what ?? "a call", error, ctx?.requestID ?? undefined, !isEvent);
  if (!isEvent) throw error;
};

/** An error as its stack, code and causes; its other fields may contain submitted values. */
function printError(error: Error, depth = 0): string {
  const code = "code" in error && (typeof error.code === "string" || typeof error.code === "number") ? ` [${error.code}]` : "";
  const cause = "original" in error ? error.original : error.cause;
  const because = cause instanceof Error && depth < 4 ? `\n  caused by ${printError(cause, depth + 1)}` : "";
  return `${error.stack ?? error.message}${code}${because}`;
}

function print(value: unknown): string {
  if (value instanceof Error) return printError(value);
  return typeof value === "string" ? value : inspect(value, { depth: 3, breakLength: Infinity });
}

interface Bindings {
  nodeID: string;
  mod: string;
}

/**
 * `short` for people, `json` (one object per line) for machines.
 * @param withNode whether short lines name their node, for several nodes whose logs are read together
 */
export function logger(level: string, format: "short" | "json", withNode = false): LoggerConfig {
  const json = (type: string, args: unknown[], { nodeID, mod }: Bindings) => [
    JSON.stringify({
      time: new Date().toISOString(),
      level: type,
      node: nodeID,
      module: mod,
      request_id: currentRequestId(),
      message: args.map(print).join(" "),
    }),
  ];
  const short = (type: string, args: unknown[], { nodeID, mod }: Bindings) => {
    const id = currentRequestId();
    return [
      `[${new Date().toISOString().slice(11)}] ${type.toUpperCase().padEnd(5)} ${withNode ? `${nodeID} ` : ""}${mod}:`,
      ...args.map(print),
      ...(id ? [`(${id})`] : []),
    ];
  };
  return { type: "Console", options: { level, formatter: format === "json" ? json : short } };
}
