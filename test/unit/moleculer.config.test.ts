import { Runner, type BrokerOptions } from "moleculer";
import { AmqpTransporter } from "../../broker/amqp.transporter";
import configForRunner from "../../moleculer.config";

test("moleculer-runner accepts several URLs for our transporter, although it overwrites options named transporter with TRANSPORTER", () => {
  const saved = process.env.TRANSPORTER;
  process.env.TRANSPORTER = "amqp://u:p@a:1,amqp://u:p@b:2";
  try {
    const runner = new Runner() as unknown as { flags: object; config: BrokerOptions; mergeOptions(options: BrokerOptions): void };
    runner.flags = {};
    runner.mergeOptions(configForRunner());
    const { transporter } = { ...runner.config };
    expect(transporter).toBeInstanceOf(AmqpTransporter);
    expect((transporter as AmqpTransporter).opts.url).toHaveLength(2);
  } finally {
    if (saved === undefined) delete process.env.TRANSPORTER;
    else process.env.TRANSPORTER = saved;
  }
});

test.each([
  ["TRACKING_ENABLED", "false"],
  ["BULKHEAD_CONCURRENCY", "1"],
  ["MOL_CIRCUIT_BREAKER__ENABLED", "false"],
  ["METADATA_VERSION", "9"],
  ["SERIALIZER", "MsgPack"],
  ["CACHER", "Memory"],
])("%s in the environment replaces no option, neither within another nor a default", (name, value) => {
  const merged = (): BrokerOptions => {
    const runner = new Runner() as unknown as { flags: object; config: BrokerOptions; mergeOptions(options: BrokerOptions): void };
    runner.flags = {};
    runner.mergeOptions(configForRunner());
    return runner.config;
  };
  const picked = ({ tracking, bulkhead, circuitBreaker, metadata, serializer, cacher }: BrokerOptions) =>
    JSON.stringify({ tracking, bulkhead, circuitBreaker, metadata, serializer, cacher });
  const before = picked(merged());
  process.env[name] = value;
  try {
    expect(picked(merged())).toBe(before);
  } finally {
    Reflect.deleteProperty(process.env, name);
  }
});

test("moleculer-runner with SERVICES, which it would take for names of files, is refused", () => {
  const saved = { ...process.env };
  Object.assign(process.env, { SERVICES: "api", TRANSPORTER: "amqp://u:p@a:1" });
  try {
    expect(() => configForRunner()).toThrow("npm start");
  } finally {
    for (const name of ["SERVICES", "TRANSPORTER"]) {
      if (saved[name] === undefined) Reflect.deleteProperty(process.env, name);
      else process.env[name] = saved[name];
    }
  }
});

test.each(["VALIDATOR", "MIDDLEWARES", "ERRORHANDLER", "INTERNALSERVICES", "MOL_TRANSPORTER"])(
  "%s in the environment replaces no option",
  (name) => {
    process.env[name] = "Fastest";
    try {
      const runner = new Runner() as unknown as { flags: object; config: BrokerOptions; mergeOptions(options: BrokerOptions): void };
      runner.flags = {};
      const { validator, middlewares, errorHandler, internalServices, transporter } = configForRunner();
      runner.mergeOptions(configForRunner());
      const { config } = runner;
      expect(config.validator?.constructor).toBe(validator?.constructor);
      expect(config.middlewares?.length).toBe(middlewares?.length);
      expect([config.errorHandler, config.internalServices, config.transporter]).toEqual([errorHandler, internalServices, transporter]);
      expect(config.skipProcessEventRegistration).toBe(false);
    } finally {
      Reflect.deleteProperty(process.env, name);
    }
  },
);
