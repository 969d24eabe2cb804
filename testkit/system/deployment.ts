import { SERVICES, type ServiceName } from "../../config";
import type { LaunchOptions, Slot, System } from "./system";

/** One node per service, all of the same build. */
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
    for (const service of SERVICES) slots.push(await system.addSlot(service, build, name));
    return new Deployment(name, system, slots, options);
  }

  /** Starts the nodes of these services; each migrates its database to the schema of its build. */
  async start(...services: readonly ServiceName[]): Promise<void> {
    await Promise.all(services.map((service) => this.system.launch(this.slot(service), this.options)));
  }

  /** Sends SIGTERM. @throws if a node doesn't exit with code 0 */
  async shutDown(...services: readonly ServiceName[]): Promise<void> {
    await Promise.all(
      services.map(async (service) => {
        const code = await this.system.shutDown(this.slot(service));
        if (code !== 0) throw new Error(`${this.slot(service).name} exited with ${code ?? "a signal"}`);
      }),
    );
  }

  slot(service: ServiceName): Slot {
    const slot = this.slots.find((one) => one.service === service);
    if (slot === undefined) throw new Error(`the ${this.name} deployment has no ${service}`);
    return slot;
  }
}
