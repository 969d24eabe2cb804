import { rm } from "node:fs/promises";
import path from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { eventually } from "../../testkit/until";
import { ALL_PARTS, anyProduct, countParked, expectRecovery, type Chaos, type Fault, type Setup, type SetupPlan } from "./fault";
import { startShopOnServer, withOwnSetup } from "./setup";
import { PostgresServer, withoutPostgres } from "./postgres-server";
import { SmallDisk } from "./small-disk";

/*
 * PostgreSQL with its data on one small disk and its WAL on another. Each disk fills up in turn.
 */

/** Sizes in MiB. The server needs a third of each. */
const SIZE = { data: 256, wal: 192 };
const SETTINGS = {
  // A checkpoint on a full disk terminates the server (PANIC), as a full WAL does. So no checkpoint may run before that test.
  checkpoint_timeout: "1h",
  max_wal_size: "1GB",
};
/** Milliseconds from freed disk space to full recovery: the recovering server shares two cores with the load. */
const WITHIN_MS = 15_000;
/** Milliseconds for which the disk stays full after writes are refused. */
const FULL_MS = 5_000;

interface Disks {
  server: PostgresServer;
  data: SmallDisk;
  wal: SmallDisk;
}

async function setUp(plan: SetupPlan): Promise<[Setup, Disks]> {
  const folder = path.join(plan.common.folder, "fault-41", "server");
  plan.onStop(() => rm(folder, { recursive: true, force: true, maxRetries: 5 }));
  const disk = (name: keyof typeof SIZE): SmallDisk => {
    const one = SmallDisk.mount(path.join(folder, name), SIZE[name]);
    plan.onStop(() => one.remove());
    return one;
  };
  const [wal, data] = [disk("wal"), disk("data")]; // unmounted in reverse order: the server's working directory is on the data disk
  const server = await PostgresServer.create(folder, SETTINGS, ["--waldir", wal.folder, "--wal-segsize=1"]);
  plan.onStop(() => server.stop("immediate"));
  return [await startShopOnServer(server, plan, "fault-41"), { server, data, wal }];
}

/** The statuses of a repeated read. */
async function reads(chaos: Chaos, ms: number): Promise<Set<number>> {
  const statuses = new Set<number>();
  for (const end = Date.now() + ms; Date.now() < end;) {
    statuses.add((await chaos.load.request("GET", `/products/${anyProduct(chaos)}`)).status);
    await pause(50);
  }
  return statuses;
}

/** Existing pages with free space still take rows. After that, every write fails until the disk has space. */
async function dataFull(chaos: Chaos, { data }: Disks): Promise<void> {
  const { load, expect } = chaos;
  data.fill();
  const { failures } = load.window;
  await eventually("writes are refused", () => load.window.failures > failures + 20, 60_000);
  const statuses = await reads(chaos, FULL_MS);
  expect([...statuses].join() === "200", `reads had the statuses ${[...statuses].join()} while the data disk was full`);
  data.free();
  await expectRecovery(chaos, "the data disk had space", WITHIN_MS);
}

/** PostgreSQL terminates, and terminates again whenever it is started before the disk has space. */
async function walFull(chaos: Chaos, { server, wal }: Disks): Promise<void> {
  const { load, expect } = chaos;
  wal.fill();
  await eventually("PostgreSQL has terminated", async () => {
    // uses up the existing segments, as archive_timeout does
    if (server.isRunning) await server.sql("select pg_switch_wal()");
    return !server.isRunning;
  });
  const { accepted } = load.window;
  const statuses = await reads(chaos, FULL_MS);
  expect([...statuses].join() === "503", `reads had the statuses ${[...statuses].join()} while PostgreSQL was down`);
  const isUp = await server.start().then(
    () => true,
    () => false,
  );
  expect(!isUp, "PostgreSQL has started although the WAL disk is full");
  expect(load.window.accepted === accepted, `${load.window.accepted - accepted} orders were accepted while PostgreSQL was down`);
  wal.free();
  await server.start();
  await expectRecovery(chaos, "the WAL disk had space", WITHIN_MS);
}

export const DISK_FAULTS: readonly Fault[] = [
  {
    number: 41,
    name: "disk full: data, then WAL",
    withinMs: WITHIN_MS,
    random: ALL_PARTS,
    impossible: () => withoutPostgres() ?? SmallDisk.impossible(),
    ...withOwnSetup(setUp, async (chaos, disks) => {
      const pids = (): string => chaos.system.running().map(({ process }) => process.pid).join(); // prettier-ignore
      const [before, nodes] = [await countParked(chaos), pids()];
      await dataFull(chaos, disks);
      await walFull(chaos, disks);
      chaos.expect((await countParked(chaos)) === before, "outbox rows were parked");
      chaos.expect(pids() === nodes, "a node has exited");
    }),
  },
];
