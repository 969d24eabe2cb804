import type { ServiceBroker } from "moleculer";
import { broadcast } from "../../broker/contract";
import { MAX_BATCH } from "../../contracts/contract";
import { orderChanged } from "../../contracts/orders";

/** Milliseconds for which changes are collected: each event costs every gateway as much as a small request. */
const NOTIFY_AFTER_MS = 20;

/** Notifies gateways of orders that have changed. */
export class Changes {
  private readonly changed = new Set<string>();
  private timer: NodeJS.Timeout | undefined;

  constructor(private readonly broker: ServiceBroker) {}

  /** To be called after the commit. Never throws and never blocks. */
  note(ids: readonly string[]): void {
    if (ids.length === 0) return;
    for (const id of ids) this.changed.add(id);
    this.timer ??= setTimeout(() => {
      this.timer = undefined;
      const orders = [...this.changed].map((order_id) => ({ order_id }));
      this.changed.clear();
      for (let i = 0; i < orders.length; i += MAX_BATCH) broadcast(this.broker, orderChanged, { orders: orders.slice(i, i + MAX_BATCH) });
    }, NOTIFY_AFTER_MS).unref();
  }

  stop(): void {
    clearTimeout(this.timer);
  }
}
