import amqplib from "amqplib";
import { amqpTransporter } from "../../../broker/amqp.transporter";

interface Dialer {
  opts: { url: string[] };
  dial(url: string): Promise<unknown>;
}

afterEach(() => {
  jest.restoreAllMocks();
});

/** What a node sends to RabbitMQ as its user and password (SASL PLAIN, RFC 4616); undefined if that is left to amqplib. */
async function loginTo(url: string): Promise<string[] | undefined> {
  const connect = jest.spyOn(amqplib, "connect").mockRejectedValue(new Error("refused by the test"));
  const transporter = amqpTransporter(url) as unknown as Dialer;
  await expect(transporter.dial(transporter.opts.url[0]!)).rejects.toThrow("refused by the test");
  const options = connect.mock.calls[0]?.[1] as { credentials?: { mechanism: string; response(): Buffer } };
  if (options.credentials === undefined) return undefined;
  expect(options.credentials.mechanism).toBe("PLAIN");
  return options.credentials.response().toString("utf8").split("\0").slice(1);
}

test.each([
  ["amqp://shop:secret@mq:5672", ["shop", "secret"]],
  ["amqps://sh%C3%B6p:p%C3%A4ss%2F%E2%82%AC@mq/vhost?heartbeat=9", ["shöp", "päss/€"]],
  ["amqp://shop:p\u00e4ss%20%25%2C@mq1:5672/a", ["shop", "päss %,"]],
  ["amqp://shop:@mq", ["shop", ""]],
  ["amqp://mq:5672", undefined],
])("the user and the password in %s are UTF-8, percent-encoded or not", async (url, login) => {
  expect(await loginTo(url)).toEqual(login);
});
