import { spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, openSync } from "node:fs";
import path from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { ServiceBroker, type ServiceSchema } from "moleculer";
import { orderCreated } from "../../contracts/orders";
import { stockSettled } from "../../contracts/products";
import { readIfThere } from "../../scripts/postgres-binaries";
import { NAMESPACE, type System } from "../../testkit/system/system";
import { eventually } from "../../testkit/until";
import { ALL_PARTS, TWO_OF_EACH, untilAccepting, type Fault } from "./fault";

/*
 * Faults of a node's neighbours: a peer that dies repeatedly, and nodes that don't belong to the shop.
 */

/** Smaller than `npm start` allows, so that it fills up within a second or two. */
const SMALL_HEAP = ["--max-old-space-size=96"];
const SLOW_MS = 20_000;

/** A plain Moleculer node with Moleculer's own transporter. */
const stranger = (system: System, service: ServiceSchema): ServiceBroker => {
  const broker = new ServiceBroker({
    namespace: NAMESPACE,
    nodeID: `${service.name}-${Date.now()}`,
    transporter: { type: "AMQP", options: { url: system.rabbit.url, prefetch: 64 } },
    logger: false,
  });
  broker.createService(service);
  return broker;
};

/** Opens a console and leaves it open, as in a terminal. @returns a function that ends it and returns its exit code */
function openConsole(system: System): () => Promise<number | null> {
  const log = openSync(path.join(system.folder, "logs", "console.log"), "a");
  const child = spawn(process.execPath, ["scripts/repl.js"], {
    cwd: system.buildFolder,
    env: { PATH: process.env["PATH"] ?? "", NODE_ENV: "test", NAMESPACE, TRANSPORTER: system.rabbit.url },
    stdio: ["pipe", log, log],
    detached: true,
  });
  closeSync(log);
  child.stdin?.write("nodes\n");
  return async () => {
    const ended = once(child, "exit");
    child.stdin?.end();
    const timer = setTimeout(() => child.kill("SIGKILL"), 20_000);
    await ended;
    clearTimeout(timer);
    return child.exitCode;
  };
}

export const NEIGHBOUR_FAULTS: readonly Fault[] = [
  {
    number: 46,
    name: "nodes that repeatedly run out of heap",
    nodes: TWO_OF_EACH,
    random: ["orders", "products"],
    async inject(chaos) {
      const { system, load, quick, expect } = chaos;
      for (let time = 0; time < (quick ? 1 : 3); time++)
        for (const service of ["orders", "products"] as const) {
          const [slot] = system.running(service);
          if (slot === undefined) continue;
          await system.shutDown(slot);
          const node = await system.launch(slot, { flags: SMALL_HEAP });
          await node.arm({ point: "now", does: "fill the heap" });
          await node.exited(40_000);
          expect(readIfThere(node.logFile).includes("heap limit"), `${slot.name} exited, but not for lack of heap`);
          const before = load.window.accepted;
          await eventually("its peer serves requests", () => load.window.accepted > before + 10, 30_000);
          await system.launch(slot);
        }
    },
  },
  {
    number: 47,
    name: "foreign nodes: a listener to everything, a slow one, a console",
    withinMs: 15_000,
    random: ALL_PARTS,
    async inject(chaos) {
      const { system, load, expect } = chaos;
      const slow = (): Promise<void> => pause(SLOW_MS, undefined, { ref: false });
      const strangers = [
        stranger(system, { name: "listener", events: { "**": () => undefined } }),
        stranger(system, { name: "slow", events: { [orderCreated.name]: slow, [stockSettled.name]: slow } }),
      ];
      const closeConsole = openConsole(system);
      try {
        await Promise.all(strangers.map((broker) => broker.start()));
        load.openWindow();
        await pause(3_000);
        expect(load.window.failures === 0, `${load.window.failures} requests failed beside nodes that don't belong to the shop`);
        // The consoles subscribe to order.created while no node replies to it.
        const slots = system.running("products");
        await Promise.all(slots.map(({ process }) => process.kill()));
        await pause(12_000); // longer than the heartbeat timeout
        await Promise.all(slots.map((slot) => system.launch(slot)));
        await untilAccepting(chaos);
      } finally {
        await Promise.all(strangers.map((broker) => broker.stop()));
        const code = await closeConsole();
        expect(code === 0, `the console exited with ${code ?? "a signal"}`);
      }
    },
  },
];
