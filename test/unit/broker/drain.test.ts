import { ServiceBroker, type ServiceSchema } from "moleculer";
import { loadConfig } from "../../../config";
import { brokerOptions } from "../../../moleculer.config";
import { uniqueNamespace } from "../../../testkit/shop";
import { until } from "../../../testkit/until";

it("a node that stops drains at once, although a call to another node is in progress", async () => {
  const namespace = uniqueNamespace();
  const nodeOf = (nodeID: string, service: Partial<ServiceSchema>): ServiceBroker => {
    const broker = new ServiceBroker({ ...brokerOptions(loadConfig({})), namespace, nodeID, transporter: "Fake", logger: false });
    broker.createService({ name: nodeID, ...service });
    return broker;
  };
  let finish = (): void => undefined;
  const finished = new Promise<void>((resolve) => (finish = resolve));
  let isStarted = false;
  let isDrained = false;
  const far = nodeOf("far", {
    actions: {
      slow: () => {
        isStarted = true;
        return finished;
      },
    },
  });
  const near = nodeOf("near", {
    methods: {
      drain: () => {
        isDrained = true;
        return Promise.resolve();
      },
    },
  });
  await Promise.all([far.start(), near.start()]);
  await near.waitForServices(["far"], 5_000);
  const called = near.call("far.slow");
  await until("the call is in progress", () => isStarted);
  const stopped = near.stop();
  try {
    await until("the node drains", () => isDrained, 2_000);
  } finally {
    finish();
    await called;
    await stopped;
    await far.stop();
  }
});
