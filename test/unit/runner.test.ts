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
