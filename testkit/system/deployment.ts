import { existsSync } from "node:fs";
import path from "node:path";
import { SERVICES, type ServiceName } from "../../config";
import type { LaunchOptions, Slot, System } from "./system";

/** One node per service, all of the same build. A release lacks services that are newer: they are never started. */
export class Deployment {
  private constructor(
    readonly name: string,
    private readonly system: System,
    private readonly slots: readonly Slot[],
    private readonly options: LaunchOptions,
  ) {}

  /** Prepares the nodes without starting them. @param name a part of their ids */
  static async of(system: System, name: string, build: string, options: LaunchOptions = {}): Promise<Deployment> {
    const slots: Slot[] = [];
    for (const service of SERVICES)
      if (existsSync(path.join(build, "services", service))) slots.push(await system.addSlot(service, build, name));
    return new Deployment(name, system, slots, options);
  }

  /** Starts the nodes of these services; each migrates its database to the schema of its build. */
  async start(...services: readonly ServiceName[]): Promise<void> {
    await Promise.all(this.stopped(services).map((slot) => this.system.launch(slot, this.options)));
  }

  /** Sends SIGTERM. @throws if a node doesn't exit with code 0 */
  async shutDown(...services: readonly ServiceName[]): Promise<void> {
    await Promise.all(
      this.slotsOf(services).map(async (slot) => {
        const code = await this.system.shutDown(slot);
        if (code !== 0) throw new Error(`${slot.name} exited with ${code ?? "a signal"}`);
      }),
    );
  }

  has(service: ServiceName): boolean {
    return this.slots.some((slot) => slot.service === service);
  }

  private slotsOf(services: readonly ServiceName[]): readonly Slot[] {
    return this.slots.filter(({ service }) => services.includes(service));
  }

  private stopped(services: readonly ServiceName[]): readonly Slot[] {
    return this.slotsOf(services).filter(({ process }) => process?.isRunning !== true);
  }

  slot(service: ServiceName): Slot {
    const slot = this.slots.find((one) => one.service === service);
    if (slot === undefined) throw new Error(`the ${this.name} deployment has no ${service}`);
    return slot;
  }
}
