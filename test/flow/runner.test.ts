import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { SERVICES } from "../../config";
import { amqpUrl, connectionPids, deleteLeftovers } from "../../testkit/amqp";
import { until } from "../../testkit/until";
import { ROOT } from "../../testkit/repository";
import { createDatabases, dropDatabases, variablesOf, type TestDatabases } from "../../testkit/databases";
import { uniqueNamespace } from "../../testkit/shop";

let databases: TestDatabases | undefined;
let child: ChildProcess | undefined;

afterEach(async () => {
  child?.kill("SIGKILL");
  await dropDatabases(databases);
});

it("moleculer-runner starts the shop with our transporter, and SIGTERM drains it and ends it with exit code 0", async () => {
  const amqp = await amqpUrl();
  if (amqp === undefined) return; // said why
  const made = (databases = await createDatabases());
  const NAMESPACE = uniqueNamespace();
  const NODE_ID = `${NAMESPACE}-all`;
  const urls = variablesOf(made);
  const files = SERVICES.map((name) => `services/${name}/${name}.service.ts`);
  const runner = ["node_modules/moleculer/bin/moleculer-runner.js", "--config", "moleculer.config.ts", ...files];
  const started = (child = spawn(process.execPath, ["--import", "tsx", ...runner], {
    cwd: ROOT,
    env: { PATH: process.env.PATH, ...urls, NAMESPACE, NODE_ID, TRANSPORTER: amqp, PORT: "0", BCRYPT_COST: "4" },
  }));
  let output = "";
  for (const stream of [started.stdout, started.stderr]) stream.on("data", (chunk: Buffer) => (output += chunk.toString()));
  try {
    await until("it is started", () => / started successfully /.test(output), 60_000);
    const [, url = ""] = /listening on (http:\S+)/.exec(output) ?? [];
    expect((await fetch(`${url}/health`)).status).toBe(200);
    expect(output).toContain("Transporter: AmqpTransporter");
    const pids = await connectionPids(NODE_ID); // only our transporter names its connection
    if (pids !== undefined) expect(pids).toHaveLength(1);
    started.kill("SIGTERM");
    const [code] = (await once(started, "close")) as [number | null];
    expect({ code, output }).toEqual({ code: 0, output: expect.stringContaining("ServiceBroker is stopped. Good bye.") });
  } finally {
    await deleteLeftovers(amqp, NAMESPACE, [NODE_ID]);
  }
});
