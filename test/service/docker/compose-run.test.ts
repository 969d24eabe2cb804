import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { cp, mkdtemp, readdir, readFile, rm, symlink } from "node:fs/promises";
import { builtinModules } from "node:module";
import { tmpdir } from "node:os";
import path from "node:path";
import { inspect, promisify } from "node:util";
import type { Channel } from "amqplib";
import { databaseNames, SERVICES, type ServiceName } from "../../../config";
import { RabbitMQ } from "../../../testkit/rabbitmq";
import { until } from "../../../testkit/until";
import { withChannel } from "../../../testkit/amqp";
import { Client } from "../../../testkit/client";
import { Cluster, withoutPsql } from "./cluster";
import { compose, environmentOf, imageCommand } from "./compose-file";
import { textOf, ROOT } from "../../../testkit/repository";
import { killProcesses, startProcess, type NodeProcess } from "../../../testkit/node-process";

const run = promisify(execFile);

/** Creates the contents of the image as the Dockerfile does: copies the sources that .dockerignore allows, and builds them. */
async function buildImage(directory: string): Promise<void> {
  const sources = [...textOf(".dockerignore").matchAll(/^!(.+)$/gm)].map(([, name]) => name!);
  for (const name of sources) await cp(path.join(ROOT, name), path.join(directory, name), { recursive: true });
  await symlink(path.join(ROOT, "node_modules"), path.join(directory, "node_modules"));
  await run("npm", ["run", "build"], { cwd: directory }).catch((cause: unknown) => {
    throw new Error(`npm run build failed: ${(cause as { stdout: string }).stdout}`, { cause });
  });
}

/** Starts RabbitMQ with the configuration and environment of its container. @returns undefined if it isn't installed @throws on CI in that case */
async function startRabbitMQ(folder: string): Promise<RabbitMQ | undefined> {
  if (!RabbitMQ.isInstalled()) {
    if (process.env["CI"]) throw new Error("Debian's rabbitmq-server is needed on CI");
    console.warn("skipped: Debian's rabbitmq-server is not installed");
    return undefined;
  }
  const env = Object.fromEntries(Object.entries(compose()["rabbitmq"]!.environment).map(([name, value]) => [name, String(value)]));
  const { username, password, pathname } = new URL(environmentOf("api")["TRANSPORTER"]!);
  return RabbitMQ.start(folder, { config: textOf("docker/rabbitmq.conf"), env, user: `${username}:${password}`, path: pathname });
}

describe("the shop as compose runs it", () => {
  let cluster: Cluster;
  let image: string;
  let folder: string;
  let rabbit: RabbitMQ | undefined;
  let shop: Readonly<Record<ServiceName, NodeProcess>> | undefined;

  beforeAll(async () => {
    [image, folder] = (await Promise.all(["shop-image-", "shop-rabbitmq-"].map((name) => mkdtemp(path.join(tmpdir(), name))))) as [
      string,
      string,
    ];
    cluster = await Cluster.start();
    await buildImage(image);
    rabbit = await startRabbitMQ(folder);
    if (rabbit === undefined) return;
    await cluster.initialise(withoutPsql);
    const { url } = rabbit;
    const started = SERVICES.map(async (name) => [name, await startProcess(container(name, url))] as const);
    shop = Object.fromEntries(await Promise.all(started)) as Record<ServiceName, NodeProcess>;
    const gateway = new Client(shop.api.url!);
    await until("the nodes know each other", async () => (await gateway.get("/health")).status === 200);
  }, 180_000);

  afterAll(async () => {
    await killProcesses();
    await rabbit?.stop();
    await cluster.stop();
    await Promise.all([image, folder].map((directory) => rm(directory, { recursive: true, force: true })));
  });

  /** Starts a service as in its container, but with local servers in place of postgres and rabbitmq, and with free ports. */
  function container(name: ServiceName, rabbitmq: string) {
    const ofContainer = Object.entries(environmentOf(name)).filter(([variable]) => variable !== "OPS_PORT");
    const databases = databaseNames().filter(([service]) => service === name);
    return {
      command: imageCommand("CMD"),
      cwd: image,
      services: [name],
      env: {
        ...Object.fromEntries(ofContainer),
        ...Object.fromEntries(databases.map(([service, variable]) => [variable, cluster.urls[service].href])),
        TRANSPORTER: rabbitmq,
        BCRYPT_COST: "4",
      },
    };
  }

  test("the build needs nothing that the image lacks", async () => {
    const { dependencies } = JSON.parse(textOf("package.json")) as { dependencies: Record<string, string> };
    const known = new Set([...Object.keys(dependencies), ...builtinModules]);
    const built = (await readdir(path.join(image, "dist"), { recursive: true })).filter((file) => file.endsWith(".js"));
    expect(built).toContain(path.join("scripts", "start.js"));
    for (const file of built) {
      const code = await readFile(path.join(image, "dist", file), "utf8");
      const imported = [...code.matchAll(/\brequire\("(?!\.|node:)((?:@[^/"]+\/)?[^/"]+)/g)].map(([, name]) => name!);
      expect({ file, missing: imported.filter((name) => !known.has(name)) }).toEqual({ file, missing: [] });
    }
    for (const [service] of databaseNames()) expect(existsSync(path.join(image, "dist/services", service, "migrations"))).toBe(true);
  });

  test("an order of three is confirmed, and the stock falls from 50 to 47", async () => {
    if (!shop) return;
    const client = new Client(shop.api.url!);
    await client.signUp();
    const product = await client.createProduct({ quantity: 50 });
    const placed = await client.order(product, 3);
    expect(placed).toMatchObject({ status: 201, body: { status: "PENDING" } });
    expect(await client.decided(String(placed.body["id"]))).toMatchObject({ status: "CONFIRMED" });
    expect(await client.quantityOf(product)).toBe(47);
  });

  test("RabbitMQ has refused no operation of the nodes", async () => {
    if (!rabbit) return;
    const logs = (await readdir(path.join(folder, "log"))).map((name) => readFile(path.join(folder, "log", name), "utf8"));
    const log = (await Promise.all(logs)).join("");
    expect(log).toContain("user 'shop' authenticated and granted access to vhost 'shop'");
    expect(log).not.toMatch(/refused|error/i);
    const queues = (await rabbit.ctl("list_queues", "-p", "shop", "name")).trim().split("\n").slice(1);
    expect(queues).toEqual(
      expect.arrayContaining([expect.stringMatching(/^MOL-shop\.REQ\.orders-/), expect.stringMatching(/^MOL-shop\.EVENT\.products-/)]),
    );
    for (const name of queues) expect(name).toMatch(/^MOL-shop\./);
  });

  test("SIGTERM stops each node with exit code 0, and the image's health check distinguishes before and after", async () => {
    if (!shop) return;
    const [program = "", ...args] = imageCommand("HEALTHCHECK");
    const check = ({ ops }: NodeProcess): Promise<unknown> => run(program, args, { env: { OPS_PORT: new URL(ops).port } });
    const all = Object.values(shop);
    await Promise.all(all.map(check));
    expect(await Promise.all(all.map((node) => node.stop()))).toEqual([0, 0, 0, 0]);
    for (const node of all) await expect(check(node)).rejects.toMatchObject({ code: 1 });
  });

  test("RabbitMQ's user is no administrator, and there are no other users or virtual hosts", async () => {
    if (!rabbit) return;
    expect((await rabbit.ctl("list_users")).trim().split("\n").slice(1)).toEqual(["shop\t[]"]);
    expect((await rabbit.ctl("list_vhosts")).trim().split("\n").slice(1)).toEqual(["shop"]);
    const { url } = rabbit;
    expect(await outcome(url.replace(/\/shop$/, ""))).toContain("got <ConnectionClose"); // the virtual host "/"
    expect(await outcome(url.replace("shop:shop-dev", "guest:guest"))).toContain("ACCESS_REFUSED");
    expect(await outcome(url)).toBe("allowed");
  });

  /** amqplib doesn't always reject with an Error. */
  const outcome = (url: string, attempt: (channel: Channel) => Promise<unknown> = () => Promise.resolve()): Promise<string> =>
    withChannel(url, attempt).then(
      () => "allowed",
      (reason: unknown) => inspect(reason),
    );

  const REFUSED: [what: string, attempt: (channel: Channel) => Promise<unknown>][] = [
    ["declare a queue", (channel) => channel.assertQueue("other")],
    ["declare a queue of another namespace", (channel) => channel.assertQueue("MOL-shop2.REQ.node")],
    ["declare an exchange", (channel) => channel.assertExchange("other", "fanout")],
    ["delete a queue", (channel) => channel.deleteQueue("foreign")],
    ["delete an exchange", (channel) => channel.deleteExchange("foreign")],
    ["read a queue", (channel) => channel.get("foreign")],
    ["consume a queue", (channel) => channel.consume("foreign", () => undefined)],
    ["empty a queue", (channel) => channel.purgeQueue("foreign")],
    ["bind its own queue to an exchange", (channel) => channel.bindQueue("MOL-shop.own", "foreign", "")],
    ["bind a queue to its own exchange", (channel) => channel.bindQueue("foreign", "MOL-shop.own", "")],
    ["publish to an exchange", (channel) => published(channel, "foreign")],
    ["publish to RabbitMQ's own exchange", (channel) => published(channel, "amq.fanout")],
  ];

  /** RabbitMQ refuses a publish by closing the channel, which fails the next request on it. */
  function published(channel: Channel, exchange: string): Promise<unknown> {
    const closed = new Promise((_, reject) => channel.once("error", reject));
    channel.publish(exchange, "", Buffer.from("x"));
    return Promise.race([closed, channel.checkQueue("MOL-shop.own")]);
  }

  describe("RabbitMQ's user can't, outside its namespace,", () => {
    beforeAll(async () => {
      if (!rabbit) return;
      await rabbit.ctl("add_user", "other", "other");
      await rabbit.ctl("set_permissions", "-p", "shop", "other", ".*", ".*", ".*");
      await withChannel(rabbit.url.replace("shop:shop-dev", "other:other"), async (channel) => {
        await channel.assertQueue("foreign");
        await channel.assertExchange("foreign", "fanout");
      });
      await withChannel(rabbit.url, async (channel) => {
        await channel.assertQueue("MOL-shop.own");
        await channel.assertExchange("MOL-shop.own", "fanout");
        await channel.bindQueue("MOL-shop.own", "MOL-shop.own", "");
      });
    }, 30_000);

    test.each(REFUSED)("%s", async (_what, attempt) => {
      if (!rabbit) return;
      expect(await outcome(rabbit.url, attempt)).toContain("ACCESS_REFUSED");
    });
  });
});
