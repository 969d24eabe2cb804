import { isFinal } from "../../../contracts/orders";
import type { Of } from "../../../testkit/history/operation";
import type { Network } from "./network";
import type { SimulatedOrder } from "./shop";

/** Follows an order for some seconds, until the client, the network or the gateway ends the stream. */
export function follow(
  network: Network,
  user: string,
  order: SimulatedOrder,
  resumed: number | undefined,
  done: (stream: Of<"order.stream">) => void,
): void {
  const { clock } = network;
  const begin = clock.now;
  const events: Of<"order.stream">["events"] = [];
  const common = { kind: "order.stream", begin, user, order: order.id, ...(resumed !== undefined && { last_event_id: resumed }) } as const;
  let sent = resumed ?? 0;
  let isOpen = true;

  const close = (closed: "server" | "client" | "cut") => {
    if (!isOpen) return;
    isOpen = false;
    order.listeners.delete(onChange);
    done({ ...common, end: clock.now, outcome: "ok", events, closed });
  };
  const sendNew = () => {
    if (!isOpen) return;
    for (const status of order.history.slice(sent)) events.push({ at: clock.now, id: ++sent, status });
    if (isFinal(order.status)) close("server");
  };
  /** The gateway is notified of a change soon, or finds it at the next periodic read. */
  const onChange = () => clock.after(network.upTo(network.random() < 0.9 ? 30 : 5_000), sendNew);

  clock.after(network.upTo(5), () => {
    if (isFinal(order.status) && sent >= order.history.length) {
      done({ ...common, end: clock.now, outcome: "failed", status: 204, events });
      return;
    }
    order.listeners.add(onChange);
    sendNew();
    const ending = network.random();
    clock.after(network.upTo(ending < 0.3 ? 20_000 : 1_000), () => close(ending < 0.7 ? "client" : ending < 0.85 ? "server" : "cut"));
  });
}
