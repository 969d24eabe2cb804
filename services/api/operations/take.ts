import type { ServiceBroker } from "moleculer";
import { call } from "../../../broker/contract";
import { hostsOf, isHosted } from "../../../broker/listeners";
import type { ActionContract, Result } from "../../../contracts/contract";
import { gatewayActivity, orderActivity, stockActivity, type Snapshot } from "../../../contracts/operations";
import { ratesOf, type Counted } from "./activity";
import { nodesOf } from "./nodes";

/** Time that a node or a service has to respond, in ms: a snapshot does not wait longer for it. */
const TIMEOUT_MS = 800;
/** Time over which rates are computed, in ms. */
const RATED_MS = 11_000;

/** Takes snapshots of the shop, for one gateway. */
export class SnapshotTaker {
  /** By node, oldest first. */
  private readonly readings = new Map<string, Counted[]>();

  constructor(private readonly broker: ServiceBroker) {}

  /** Never rejects: a part that does not respond is null. */
  async take(): Promise<Snapshot> {
    const [nodes, orders, stock] = await Promise.all([
      nodesOf(this.broker, TIMEOUT_MS),
      this.ask(orderActivity),
      this.ask(stockActivity),
      this.readGateways(),
    ]);
    return { at: new Date().toISOString(), nodes, requests: ratesOf(this.readings.values()), orders, busiest: stock?.busiest ?? null };
  }

  /** Every gateway counts its own requests. */
  private async readGateways(): Promise<void> {
    const nodeIDs = hostsOf(this.broker, gatewayActivity.name);
    await Promise.all(
      nodeIDs.map(async (nodeID) => {
        const activity = await this.ask(gatewayActivity, { nodeID });
        const at = performance.now();
        const recent = (this.readings.get(nodeID) ?? []).filter((reading) => at - reading.at < RATED_MS);
        if (activity !== null) recent.push({ ...activity, at });
        this.readings.set(nodeID, recent);
      }),
    );
    for (const nodeID of this.readings.keys()) if (!nodeIDs.includes(nodeID)) this.readings.delete(nodeID);
  }

  /** /health and the log say why something does not respond. */
  private async ask<C extends ActionContract>(contract: C, where: { nodeID?: string } = {}): Promise<Result<C> | null> {
    if (!isHosted(this.broker, contract.name)) return null;
    return call(this.broker, contract, {}, { ...where, timeout: TIMEOUT_MS, retries: 0 }).catch(() => null);
  }
}
