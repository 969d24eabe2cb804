import { rm } from "node:fs/promises";
import path from "node:path";
import { ALL, anyProduct, back, parked, type Chaos, type Fault, type Ground, type GroundPlan } from "./fault";
import { onGround, shopOnServer } from "./ground";
import { PostgresServer, withoutPostgres } from "./postgres-server";
import { SmallDisk } from "./small-disk";
import { pause, until } from "./wait";

/*
 * A PostgreSQL whose data lie on one small disk and whose WAL on another, and each in turn is full.
 */

/** MiB. The server needs a third of each. */
const SIZE = { data: 256, wal: 192 };
const SETTINGS = {
  // A checkpoint that finds the disk full ends the server (PANIC), as a full WAL does. It shall go on until then.
  checkpoint_timeout: "1h",
  max_wal_size: "1GB",
};
/** Milliseconds from when there is room until all is as before: a server that recovers has two cores to share. */
const WITHIN_MS = 15_000;
/** Milliseconds for which the disk stays full once everything is refused. */
const FULL_MS = 5_000;

interface Disks {
  server: PostgresServer;
  data: SmallDisk;
  wal: SmallDisk;
}

async function lay(plan: GroundPlan): Promise<[Ground, Disks]> {
  const folder = path.join(plan.common.folder, "fault-41", "server");
  plan.onStop(() => rm(folder, { recursive: true, force: true, maxRetries: 5 }));
  const disk = (name: keyof typeof SIZE): SmallDisk => {
    const one = SmallDisk.mount(path.join(folder, name), SIZE[name]);
    plan.onStop(() => one.end());
    return one;
  };
  const [wal, data] = [disk("wal"), disk("data")]; // ended in opposite order: the servers work on the second
  const server = await PostgresServer.create(folder, SETTINGS, ["--waldir", wal.folder, "--wal-segsize=1"]);
  plan.onStop(() => server.stop("immediate"));
  return [await shopOnServer(server, plan, "fault-41"), { server, data, wal }];
}

/** The statuses of a read that is sent again and again. */
async function reads(chaos: Chaos, ms: number): Promise<Set<number>> {
  const statuses = new Set<number>();
  for (const end = Date.now() + ms; Date.now() < end;) {
    statuses.add((await chaos.load.request("GET", `/products/${anyProduct(chaos)}`)).status);
    await pause(50);
  }
  return statuses;
}

/** Pages that have room left take rows, and then nothing is written until a page has room again. */
async function dataFull(chaos: Chaos, { data }: Disks): Promise<void> {
  const { load, expect } = chaos;
  data.fill();
  const { failures } = load.window;
  await until("writes are refused", () => load.window.failures > failures + 20, 60_000);
  const statuses = await reads(chaos, FULL_MS);
  expect([...statuses].join() === "200", `reads were answered ${[...statuses].join()} while the data's disk was full`);
  data.free();
  await back(chaos, "the data's disk had room", WITHIN_MS);
}

/** PostgreSQL ends itself, and again whenever it is started before there is room. */
async function walFull(chaos: Chaos, { server, wal }: Disks): Promise<void> {
  const { load, expect } = chaos;
  wal.fill();
  await until("PostgreSQL has ended", async () => {
    // as archive_timeout does, until the segments that there are have been used up
    if (server.isRunning) await server.sql("select pg_switch_wal()");
    return !server.isRunning;
  });
  const { accepted } = load.window;
  const statuses = await reads(chaos, FULL_MS);
  expect([...statuses].join() === "503", `reads were answered ${[...statuses].join()} while PostgreSQL was down`);
  const isUp = await server.start().then(
    () => true,
    () => false,
  );
  expect(!isUp, "PostgreSQL has started although its WAL has no room");
  expect(load.window.accepted === accepted, `${load.window.accepted - accepted} orders were accepted while PostgreSQL was down`);
  wal.free();
  await server.start();
  await back(chaos, "the WAL had room", WITHIN_MS);
}

export const DISK_FAULTS: readonly Fault[] = [
  {
    number: 41,
    name: "disk full: data, then WAL",
    within: WITHIN_MS,
    random: ALL,
    impossible: () => withoutPostgres() ?? SmallDisk.impossible(),
    ...onGround(lay, async (chaos, disks) => {
      const pids = (): string => chaos.system.running().map(({ process }) => process.pid).join(); // prettier-ignore
      const [before, nodes] = [await parked(chaos), pids()];
      await dataFull(chaos, disks);
      await walFull(chaos, disks);
      chaos.expect((await parked(chaos)) === before, "outbox rows were parked");
      chaos.expect(pids() === nodes, "a node has ended");
    }),
  },
];
