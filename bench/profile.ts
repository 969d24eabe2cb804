import { cpSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { auditShop } from "../testkit/audit";
import { eventually } from "../testkit/until";
import { untilQuiet, watchIdle } from "./idle";
import { Generator, type Measured, type Request } from "./load";
import { machine, table } from "./report";
import { gets, posts } from "./scenarios";
import { progress, type Setup } from "./setup";
import { startShop, type Shop } from "./shop";
import { ONE_EACH, targetOf, type Target } from "./targets";

/** The inspector's profile; times in µs. */
interface Profile {
  nodes: { id: number; callFrame: { functionName: string; url: string } }[];
  samples: number[];
  timeDeltas: number[];
}

const SECONDS = 5;
const WARM_UP = 3;
const LOADS: readonly { name: string; connections: number; requests: (target: Target) => Request[] }[] = [
  { name: "GET", connections: 32, requests: gets },
  { name: "GET", connections: 128, requests: gets },
  { name: "POST", connections: 32, requests: posts },
  { name: "POST", connections: 128, requests: posts },
];

/** Categories of CPU time by the running function; the first match counts. */
const PLACES: readonly [string, (name: string, url: string) => boolean][] = [
  ["idle", (name) => name === "(idle)"],
  ["garbage collection", (name) => name === "(garbage collector)"],
  ["system calls: writes to sockets", (name, url) => url === "" && /^(write|shutdown)/.test(name)],
  ["HTTP (Node)", (_, url) => /^node:(_http|internal\/http|url|internal\/url)/.test(url)],
  ["sockets and streams (Node)", (_, url) => /^node:(net|internal\/stream)/.test(url)],
  ["JSON to and from packets", (_, url) => url.includes("moleculer/src/serializers")],
  ["Moleculer", (_, url) => url.includes("node_modules/moleculer/")],
  [
    "moleculer-web and its parsers",
    (_, url) => /node_modules\/(moleculer-web|body-parser|raw-body|path-to-regexp|qs|isstream)\//.test(url),
  ],
  ["amqplib", (_, url) => url.includes("node_modules/amqplib/")],
  ["pg and sequelize", (_, url) => /node_modules\/(pg|postgres|sequelize)/.test(url)],
  ["other packages", (_, url) => url.includes("node_modules/")],
  ["the shop's own code", (_, url) => url.includes("/build/")],
  ["promises, timers, event loop", (name, url) => url !== "" || name === "runMicrotasks"],
  ["native code: reads, polls, buffers", () => true],
];

/** Measures how each node spends the time of a request, and how much of the machine is idle meanwhile. */
export async function profile(setup: Setup, out: string): Promise<boolean> {
  progress("starting shop 1+1+1+1 with a sampler in each node");
  const folder = path.join(setup.folder, "profiles");
  mkdirSync(folder);
  const shop = await startShop(setup, { key: "shop", topology: ONE_EACH, preload: "./bench/sampler.js", env: { PROFILE_FOLDER: folder } });
  const target: Target = { key: "shop", name: "shop 1+1+1+1", ...targetOf(shop) };
  const generator = await Generator.start(setup);
  progress("warming up");
  for (const requests of [posts, gets]) {
    await generator.closed(
      { url: target.url, connections: 128, warmUp: 0, seconds: 2 * SECONDS, requests: requests(target) },
      target.roles,
    );
  }
  const sections: string[] = [];
  for (const [n, { name, connections, requests }] of LOADS.entries()) {
    await untilQuiet(Object.values(target.roles).flat());
    progress(`${name} c${connections}`);
    const job = { url: target.url, connections, warmUp: WARM_UP, seconds: SECONDS, requests: requests(target) };
    const idleSince = watchIdle();
    const unsampled = await generator.closed(job, target.roles);
    const idle = idleSince();
    signal(shop);
    await generator.closed({ ...job, warmUp: 0 }, target.roles); // sampling costs time: the shares come from this run, the total from the other
    signal(shop);
    sections.push(section(`${name}, ${connections} connections`, unsampled, idle, await profilesOf(shop, folder, n + 1)));
  }
  const wrong = await auditShop(shop);
  mkdirSync(out, { recursive: true });
  cpSync(folder, out, { recursive: true });
  const text = report(sections, wrong);
  writeFileSync(path.join(out, "profile.md"), text);
  console.log(text);
  return wrong.length === 0;
}

const WORKING = /-(api|products|orders)-\d+$/;
const working = ({ nodes }: Shop) => nodes.filter(({ name }) => WORKING.test(name));

function signal(shop: Shop): void {
  for (const { pid } of working(shop)) process.kill(pid, "SIGUSR2");
}

async function profilesOf(shop: Shop, folder: string, n: number): Promise<Map<string, Profile>> {
  const profiles = new Map<string, Profile>();
  for (const { name } of working(shop)) {
    const file = path.join(folder, `${name}.${n}.cpuprofile`);
    await eventually(`${name} has written its profile`, () => Promise.resolve(existsSync(file)), 60_000);
    profiles.set(name, JSON.parse(readFileSync(file, "utf8")) as Profile); // the inspector's own
  }
  return profiles;
}

/** Shares of the time by category. */
function partsOf({ nodes, samples, timeDeltas }: Profile): Map<string, number> {
  const places = new Map(
    nodes.map(({ id, callFrame: { functionName, url } }) => [id, PLACES.find(([, fits]) => fits(functionName, url))?.[0] ?? ""]),
  );
  const parts = new Map<string, number>();
  const total = timeDeltas.reduce((sum, delta) => sum + delta, 0);
  for (const [n, id] of samples.entries()) {
    const place = places.get(id) ?? "";
    parts.set(place, (parts.get(place) ?? 0) + (timeDeltas[n] ?? 0) / total);
  }
  return parts;
}

function section(title: string, measured: Measured, idle: number, profiles: ReadonlyMap<string, Profile>): string {
  const columns = [...profiles].map(([name, profile]) => ({ name, parts: partsOf(profile), cpu: 1_000 * (measured.cpu[name] ?? 0) }));
  const micros = (value: number): string => (value < 0.05 ? "" : value.toFixed(value < 10 ? 1 : 0));
  const rows = PLACES.slice(1).map(([place]) => [
    place,
    ...columns.map(({ parts, cpu }) => micros((cpu * (parts.get(place) ?? 0)) / (1 - (parts.get("idle") ?? 0)))),
  ]);
  const head = ["µs of CPU per request", ...columns.map(({ name }) => WORKING.exec(name)?.[1]?.replace("api", "gateway") ?? name)];
  const others = ["rabbitmq", "postgres", "generator"].map((role) => `${role} ${micros(1_000 * (measured.cpu[role] ?? 0))}`).join(", ");
  return `## ${title}

${table(head, [
  ...rows,
  ["total", ...columns.map(({ cpu }) => micros(cpu))],
  ["share of time that the node is idle", ...columns.map(({ parts }) => `${(100 * (parts.get("idle") ?? 0)).toFixed(0)} %`)],
])}

Other processes: ${others} µs. ${measured.rate.toFixed(0)} requests per second; ${(100 * idle).toFixed(0)} % of the cores were idle.`;
}

const report = (sections: readonly string[], wrong: readonly string[]): string => `# Profile

Shop 1+1+1+1 over RabbitMQ; ${JSON.stringify(machine())}. Each node's CPU time by category, from samples of V8's profiler. The profiles are beside
this file (\`.cpuprofile\`, for the flame graph of a browser's developer tools).

${sections.join("\n\n")}

${wrong.length === 0 ? "The audit afterwards is clean." : `The audit afterwards: ${wrong.join("; ")}`}
`;
