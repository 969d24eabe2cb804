import { renameSync, writeFileSync } from "node:fs";
import { Session } from "node:inspector";
import path from "node:path";

/*
 * Preloaded into a node (`--require`): SIGUSR2 starts a CPU profile, and the next SIGUSR2 writes it to PROFILE_FOLDER. The file is renamed when it is
 * complete, so that readers never see a part of it.
 */
const MICROSECONDS = 1_000;

const session = new Session();
session.connect();
const post = (method: string, params: object = {}): Promise<object> =>
  new Promise((resolve, reject) => {
    session.post(method, params, (error: Error | null, result?: object) => {
      if (error === null) resolve(result ?? {});
      else reject(error);
    });
  });

let count = 0;
process.on("SIGUSR2", () => {
  void (count++ % 2 === 0 ? begin() : end());
});

async function begin(): Promise<void> {
  await post("Profiler.enable");
  await post("Profiler.setSamplingInterval", { interval: MICROSECONDS });
  await post("Profiler.start");
}

async function end(): Promise<void> {
  const result = await post("Profiler.stop");
  const file = path.join(process.env.PROFILE_FOLDER ?? ".", `${process.env.NODE_ID ?? process.pid}.${count / 2}.cpuprofile`);
  writeFileSync(`${file}.part`, JSON.stringify("profile" in result ? result.profile : result));
  renameSync(`${file}.part`, file);
  await post("Profiler.disable");
}
