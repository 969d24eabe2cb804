import type { ServiceBroker } from "moleculer";
import { call } from "../../../broker/contract";
import { gatewayActivity, orderActivity, stockActivity, type GatewayActivity, type Snapshot } from "../../../contracts/operations";
import { nodesOf } from "./nodes";
import { ratesBetween, type Counted } from "./activity";

/** Time that a node or a service has to respond, in ms: a snapshot does not wait longer for it. */
const TIMEOUT_MS = 800;
/** The number of seconds over which rates are computed: as many snapshots are kept. */
const RATED = 10;

/** Takes snapshots of the shop, for one gateway. */
export class SnapshotTaker {
  private readonly counted: Counted[] = [];

  constructor(private readonly broker: ServiceBroker) {}

  /** Never rejects: a part that does not respond is null. */
  async take(): Promise<Snapshot> {
    const options = { timeout: TIMEOUT_MS, retries: 0 };
    const [nodes, counted, orders, stock] = await Promise.all([
      nodesOf(this.broker, TIMEOUT_MS),
      this.count(),
      call(this.broker, orderActivity, {}, options).catch(nothing),
      call(this.broker, stockActivity, {}, options).catch(nothing),
    ]);
    const first = this.counted.find(({ at }) => at > counted.at - (RATED + 1) * 1_000) ?? counted;
    this.counted.push(counted);
    if (this.counted.length > RATED) this.counted.shift();
    return {
      at: new Date().toISOString(),
      nodes,
      requests: ratesBetween(first, counted),
      orders,
      busiest: stock?.busiest ?? null,
    };
  }

  /** Every gateway counts its own requests. */
  private async count(): Promise<Counted> {
    const services = this.broker.registry.getServiceList({ skipInternal: true, onlyAvailable: true });
    const gateways = services.flatMap(({ name, nodeID }) => (name === "api" && nodeID !== undefined ? nodeID : []));
    const read = gateways.map(async (nodeID): Promise<[string, GatewayActivity] | null> => {
      const activity = await call(this.broker, gatewayActivity, {}, { nodeID, timeout: TIMEOUT_MS, retries: 0 }).catch(nothing);
      return activity && [nodeID, activity];
    });
    return { at: performance.now(), gateways: new Map((await Promise.all(read)).flatMap((one) => (one === null ? [] : [one]))) };
  }
}

/** /health and the log say why something does not respond. */
const nothing = (): null => null;
