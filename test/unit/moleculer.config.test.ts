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
