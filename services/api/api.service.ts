import type { Socket } from "node:net";
import { setTimeout as pause } from "node:timers/promises";
import type { ServiceBroker } from "moleculer";
import { call, implement, subscribe, type SchemaFor } from "../../broker/contract";
import { metricsOf } from "../../broker/metrics";
import { withoutDeadline, withRequest } from "../../broker/request";
import { loadConfig, type Config } from "../../config";
import { gatewayActivity } from "../../contracts/operations";
import { orderChanged } from "../../contracts/orders";
import { checkSessions, jwks, revocations } from "../../contracts/users";
import { FairSlots, SlowAddresses } from "../../mixins/fair-queue";
import { TokenVerifier } from "./auth/token-verifier";
import { responder } from "./responder.mixin";
import { ClientAddress } from "./http/client-address";
import { Connections, type ConnectionLimits } from "./connections/connections";
import { Cors } from "./http/cors";
import { decodingSlots } from "./http/decoding";
import { batchedCalls } from "./batched-calls";
import type { Api } from "./gateway";
import { largestBytes } from "./largest-response";
import { intake } from "./intake.mixin";
import { ADMISSION, lanes } from "./routing/lanes";
import { LoopTurns } from "./connections/loop-turns";
import { RequestMetrics } from "./http/metrics";
import { RateLimit } from "./http/rate-limit";
import { allRoutes } from "./routes/all";
import { Activity } from "./operations/activity";
import { Snapshots } from "./operations/snapshots";
import { SnapshotTaker } from "./operations/take";
import { Streams, type StreamLimits } from "./streams/streams";
import { refuseUnreadable } from "./connections/early-refusal";
import { web } from "./web.mixin";

/**
 * Requests with a password that one address may make per second: three times what four threads can hash at that cost. Each request over
 * the login limits would still cost a call and four statements, so a flood would take CPU time from password hashing.
 */
const passwordsPerSecond = (cost: number): number => Math.max(10, Math.round(50 * 2 ** (12 - cost)));
/** Milliseconds that a gateway waits at shutdown for requests in progress. */
const DRAIN_LIMIT_MS = 10_000;

/** Limits that tests lower. */
export interface GatewayLimits {
  streams?: Partial<StreamLimits>;
  connections?: Partial<ConnectionLimits>;
  admission?: Partial<typeof ADMISSION>;
}

/** The gateway is the only public entry point. It routes, authenticates and authorises, and has no business logic. */
export default function api(broker: ServiceBroker, config: Config = loadConfig(), limits: GatewayLimits = {}): SchemaFor<Api> {
  const { basePath } = config;
  return {
    name: "api",
    mixins: [intake(config), responder(config), web(config, allRoutes(broker, config))],

    actions: {
      activity: implement(gatewayActivity, function (this: Api) {
        return Promise.resolve(this.activity.read());
      }),
    },

    events: {
      [orderChanged.name]: subscribe(orderChanged, function (this: Api, ctx) {
        this.streams.changed(ctx.params.orders);
        return Promise.resolve();
      }),
    },

    methods: {
      /**
       * Called before any service of this node stops. For DRAIN_DELAY the gateway is not ready, but serves: load balancers need that time to
       * notice, and would otherwise have connections refused. Then it accepts no new connections, and resolves after the last response, or
       * after DRAIN_LIMIT_MS.
       */
      async drain(this: Api): Promise<void> {
        if (!this.server.listening) return;
        if (config.drainDelaySeconds > 0) await pause(config.drainDelaySeconds * 1_000);
        this.streams.end();
        const closed = this.listeningSockets.close();
        const since = performance.now();
        const timer = setInterval(() => {
          // Node treats a connection that has sent nothing or half a head as busy, and has stopped checking timeouts.
          if (this.connections.areIdle || performance.now() - since > DRAIN_LIMIT_MS) this.server.closeAllConnections();
          else this.server.closeIdleConnections();
        }, 50);
        await closed;
        clearInterval(timer);
      },
    },

    created(this: Api) {
      const slow = new SlowAddresses();
      this.batched = batchedCalls(this.broker, slow);
      this.lanes = lanes(slow);
      this.turns = new LoopTurns();
      this.decoding = decodingSlots();
      this.admission = new FairSlots({ ...ADMISSION, ...limits.admission });
      this.activity = new Activity(() => this.admission.inFlight + this.admission.waiting);
      const metrics = metricsOf(this.broker);
      if (metrics) this.metrics = new RequestMetrics(metrics, this.admission, (path) => this.routeAt(path));
      this.address = new ClientAddress(config.trustProxy);
      this.cors = new Cors(config, (line) => {
        this.logger.warn(line);
      });
      this.connections = new Connections(
        this.server,
        this.address,
        this.turns,
        (exchange) => {
          this.onFinished(exchange);
        },
        { largestBytes, ...limits.connections },
      );
      this.rateLimit = new RateLimit(config.rateLimit.requests);
      this.passwordRate = new RateLimit(passwordsPerSecond(config.bcryptCost));
      this.verifier = new TokenVerifier(
        {
          // These calls serve all waiting requests, so the deadline of the request or stream that triggers one must not apply.
          keys: async () => (await withoutDeadline(() => call(this.broker, jwks, {}))).keys,
          revocations: (params) => withoutDeadline(() => call(this.broker, revocations, params, { retries: 0 })),
          checkSessions: (sessions) =>
            withRequest(undefined, Infinity, () => call(this.broker, checkSessions, { sessions }, { retries: 0 })),
        },
        (what, error) => {
          this.logger.warn(what, error);
        },
      );
      const taker = new SnapshotTaker(this.broker);
      this.streams = new Streams(this.batched, this.verifier, new Snapshots(() => taker.take()), limits.streams);
      this.server.on("clientError", (error: Error, socket: Socket) => {
        if (!this.connections.resumeIfPaused(socket, error)) refuseUnreadable(socket, this.connections.at(socket), basePath);
      });
    },

    /** A hot reload stops only this service, without draining it, and would wait for open streams. */
    stopped(this: Api) {
      this.streams.end();
      void this.listeningSockets.close(); // not only the server's own: the new service needs the port
      this.connections.stop();
      this.verifier.stop();
    },
  };
}
