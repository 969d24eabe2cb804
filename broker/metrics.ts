import type { Middleware, ServiceBroker } from "moleculer";
import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from "prom-client";
import { errorCode } from "./errors";
import { isBlocked, isConnected } from "./listeners";

/** A value that is not recorded, but read when the metrics are scraped. */
export interface Reading {
  name: string;
  help: string;
  value: number;
  labels?: Readonly<Record<string, string>>;
}

type ReadGauges = () => readonly Reading[] | Promise<readonly Reading[]>;

/** Seconds; a client gets its response within five. */
const BUCKETS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5];
/** Milliseconds that a source of readings may take. */
const RESPONSE_TIMEOUT_MS = 1_000;

/** The metrics of one node, in Prometheus' text format. Label values come from the code only, so that memory is bounded. */
export class Metrics {
  static readonly CONTENT_TYPE = Registry.PROMETHEUS_CONTENT_TYPE;
  private readonly counted = new Registry();
  private readonly sources = new Map<string, ReadGauges>();

  constructor() {
    collectDefaultMetrics({ register: this.counted });
  }

  /** A histogram of durations in seconds. */
  durations(name: string, help: string, labelNames: string[]): Histogram {
    this.counted.removeSingleMetric(name); // of a service that `npm run dev` has reloaded
    return new Histogram({ name, help, labelNames, buckets: BUCKETS, registers: [this.counted] });
  }

  counter(name: string, help: string): Counter {
    this.counted.removeSingleMetric(name); // as above
    return new Counter({ name, help, registers: [this.counted] });
  }

  /** Calls `ask` for readings at each scrape. Replaces an earlier source with the same name `who`. */
  observe(who: string, ask: ReadGauges): void {
    this.sources.set(who, ask);
  }

  /** The text of a scrape. Readings that take too long or fail are left out. */
  async page(): Promise<string> {
    const now = new Registry();
    const gauges = new Map<string, Gauge>();
    const readings = await Promise.all([...this.sources.values()].map(readWithTimeout));
    for (const { name, help, value, labels = {} } of readings.flat()) {
      const gauge = gauges.get(name) ?? new Gauge({ name, help, labelNames: Object.keys(labels), registers: [now] });
      gauges.set(name, gauge);
      gauge.set(labels, value);
    }
    return (await this.counted.metrics()) + (await now.metrics());
  }
}

async function readWithTimeout(ask: ReadGauges): Promise<readonly Reading[]> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<readonly Reading[]>((resolve) => (timer = setTimeout(resolve, RESPONSE_TIMEOUT_MS, [])));
  try {
    return await Promise.race([Promise.resolve().then(ask), late]);
  } catch {
    return []; // /health and the log report an unavailable database
  } finally {
    clearTimeout(timer);
  }
}

const metricsByBroker = new WeakMap<ServiceBroker, Metrics>();

/** The metrics of this node; undefined if they are not served, and then nothing is counted. */
export const metricsOf = (broker: ServiceBroker): Metrics | undefined => metricsByBroker.get(broker);

/** Starts to collect this node's metrics. To be called before its services are created, since their actions are counted. */
export function collectMetrics(broker: ServiceBroker): Metrics {
  const metrics = new Metrics();
  metricsByBroker.set(broker, metrics);
  // The outermost middleware: it sees what the caller gets, including refusals of the validator and of a full queue.
  broker.middlewares.add(countCalls(metrics));
  metrics.observe("transporter", () => [
    {
      name: "shop_transporter_connected",
      help: "Whether this node is connected to the others: 1 or 0; always 1 without a transporter",
      value: isConnected(broker) ? 1 : 0,
    },
    {
      name: "shop_transporter_blocked",
      help: "Whether RabbitMQ accepts no messages, for lack of memory or disk space: 1 or 0",
      value: isBlocked(broker) ? 1 : 0,
    },
  ]);
  return metrics;
}

/** Measures actions that have a contract, so not Moleculer's own. The gateway measures its HTTP requests itself. */
function countCalls(metrics: Metrics): Middleware {
  const durations = metrics.durations("shop_action_duration_seconds", "Calls of this node's actions; a batch counts as one call", [
    "action",
    "result",
  ]);
  return {
    name: "Metrics",
    localAction: (next, { name: action, ...rest }) => {
      if (!("result" in rest)) return next;
      return async function (ctx) {
        const since = performance.now();
        let result = "ok";
        try {
          return (await next.call(this, ctx)) as unknown;
        } catch (error) {
          result = errorCode(error);
          throw error;
        } finally {
          durations.observe({ action, result }, (performance.now() - since) / 1_000);
        }
      };
    },
  };
}
