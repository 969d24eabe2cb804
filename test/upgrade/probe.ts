import { createRequire } from "node:module";
import path from "node:path";
import type * as Moleculer from "moleculer";
import type { CallRequest, CallResult, HandledMessage } from "./messages";

/*
 * Loaded into a node before anything else (`--require`), also into nodes of the older version. Therefore it resolves Moleculer as the node does and
 * doesn't use the shop's code. It reports which actions and events of other nodes were handled, and makes calls as a console would.
 */

const CALL_MS = 5_000;
const { ServiceBroker } = createRequire(path.join(process.cwd(), "probe.js"))("moleculer") as typeof Moleculer;

const send = (message: HandledMessage | CallResult): void => {
  if (process.connected) process.send?.(message);
};

/** The innermost middleware: whatever reaches it has been validated against its contract. */
function probe(broker: Moleculer.ServiceBroker): Moleculer.Middleware {
  const seen = new Set<string>();
  const note = (what: string | undefined, from: string | null): void => {
    if (what === undefined || from === null || from === broker.nodeID || seen.has(what + from)) return;
    seen.add(what + from);
    send({ what, from });
  };
  return {
    name: "Probe",
    localAction: (next, { name }) =>
      async function (ctx) {
        const result: unknown = await next.call(this, ctx);
        note(name, ctx.nodeID);
        return result;
      },
    localEvent: (next, { name }) =>
      async function (ctx) {
        await next(ctx);
        note(name, ctx.nodeID);
      },
  };
}

type Register = (this: Moleculer.ServiceBroker, middlewares?: Moleculer.Middleware[]) => void;
const internals = ServiceBroker.prototype as unknown as { registerMiddlewares: Register };
const register = internals.registerMiddlewares;
internals.registerMiddlewares = function (middlewares = []) {
  process.on("message", ({ number, action, params, meta }: CallRequest) => {
    this.call(action, params, { meta, timeout: CALL_MS }).then(
      (result) => send({ number, result }),
      (error: unknown) => send({ number, error: String(error) }),
    );
  });
  process.channel?.unref(); // the channel must not keep the node running
  register.call(this, [...middlewares, probe(this)]);
};
