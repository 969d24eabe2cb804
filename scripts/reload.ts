import { readdirSync, watch, type FSWatcher } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import type { ServiceBroker } from "moleculer";
import type { ServiceName } from "../config";
import { serviceFile } from "./node";

/**
 * Only these are reloaded. The broker itself uses the configuration and the files in broker/, which also hold state that it shares with the
 * services, such as the current request: they need a restart.
 */
const FOLDERS = ["contracts", "mixins", "services"].map((name) => path.join(__dirname, "..", name));
const EXTENSION = path.extname(__filename);

/** Milliseconds without a change before services are reloaded: editors write in several steps, and Git writes many files. */
const QUIET_MS = 300;

const load = createRequire(__filename);

interface Loaded {
  filename: string;
  children: readonly { filename: string }[];
}

/** These files, and those of the loaded modules that import one of them, directly or not. */
export function dependents(files: Iterable<string>, modules: readonly Loaded[]): Set<string> {
  const found = new Set(files);
  let before: number;
  do {
    before = found.size;
    for (const { filename, children } of modules) if (children.some((child) => found.has(child.filename))) found.add(filename);
  } while (found.size > before);
  return found;
}

/**
 * Reloads the services whose files change, for `npm run dev`. Not Moleculer's hot reload: it stops a service before it loads the new files,
 * and no longer watches them if they can't be loaded, so a service was gone for good after a typo. Here the old service runs until the new
 * files are loaded, and a service that failed is tried again after each change.
 */
export class Reloader {
  private readonly watchers = new Map<string, FSWatcher>();
  private readonly changed = new Set<string>();
  private readonly failed = new Set<ServiceName>();
  private timer: NodeJS.Timeout | undefined;
  private last = Promise.resolve();

  constructor(
    private readonly broker: ServiceBroker,
    private readonly services: readonly ServiceName[],
  ) {}

  /** Watches folders, not files: a watcher of a file loses it when an editor replaces it. Folders that are watched already are skipped. */
  start(): void {
    for (const folder of FOLDERS.flatMap(withSubfolders)) {
      if (this.watchers.has(folder)) continue;
      const watcher = watch(folder, { persistent: false }, (_event, name) => {
        if (name?.endsWith(EXTENSION)) this.onChange(path.join(folder, name));
      });
      watcher.on("error", () => {
        watcher.close(); // the folder is gone
        this.watchers.delete(folder);
      });
      this.watchers.set(folder, watcher);
    }
  }

  private onChange(file: string): void {
    this.changed.add(file);
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      this.last = this.reloadAfter(this.last);
    }, QUIET_MS);
  }

  /** One reload at a time. Never rejects. */
  private async reloadAfter(last: Promise<void>): Promise<void> {
    await last;
    try {
      await this.reloadChanged();
    } catch (error) {
      this.broker.logger.error("the reload failed:", error);
    }
  }

  private async reloadChanged(): Promise<void> {
    if (!this.broker.started) return; // shutting down
    const modules = Object.entries(load.cache).flatMap(([key, module]) =>
      module !== undefined && isReloadable(module.filename) ? [{ key, module }] : [],
    );
    const stale = dependents(
      this.changed,
      modules.map(({ module }) => module),
    );
    this.changed.clear();
    for (const { key, module } of modules) if (stale.has(module.filename)) Reflect.deleteProperty(load.cache, key);
    for (const name of this.services) if (this.failed.has(name) || stale.has(serviceFile(name))) await this.reload(name);
    this.start(); // there may be new folders
  }

  private async reload(name: ServiceName): Promise<void> {
    const { broker } = this;
    const file = serviceFile(name);
    this.failed.add(name);
    try {
      load(file);
    } catch (error) {
      broker.logger.error(`${name} was not reloaded, since a file can't be loaded; the next change tries again:`, error);
      return;
    }
    const running = broker.services.find((service) => service.name === name);
    if (running !== undefined) await broker.destroyService(running);
    try {
      broker.loadService(file);
      this.failed.delete(name);
    } catch {
      // Moleculer has logged the error.
    }
  }
}

const isReloadable = (file: string): boolean => FOLDERS.some((folder) => file.startsWith(folder + path.sep));

/** The folder, and those below it that have a file or folder. */
const withSubfolders = (folder: string): string[] => {
  const entries = readdirSync(folder, { recursive: true, encoding: "utf8" });
  return [...new Set([folder, ...entries.map((entry) => path.dirname(path.join(folder, entry)))])];
};
