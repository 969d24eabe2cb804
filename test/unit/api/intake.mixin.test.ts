import { IncomingMessage, ServerResponse } from "node:http";
import { Socket } from "node:net";
import { Connection, Holder } from "../../../services/api/connections/connection";
import { Exchange } from "../../../services/api/connections/exchange";
import type { Api } from "../../../services/api/gateway";
import { respond } from "../../../services/api/intake.mixin";
import { LoopTurns } from "../../../services/api/connections/loop-turns";
import type { RoutedRequest } from "../../../services/api/web.mixin";

/** A request whose body has been read and which waits for its turn of the event loop. */
function waiting() {
  const [socket, holder, turns] = [new Socket(), new Holder("192.0.2.1"), new LoopTurns()];
  const req = new IncomingMessage(socket);
  const exchange = new Exchange("id", req, new ServerResponse(req), new Connection(socket, holder, false), holder);
  const read = jest.fn(() => () => Promise.resolve({ status: 200 }));
  const spec = { body: {}, contract: { timeoutMs: 0 }, lane: "none", read };
  const request = { spec, path: {}, query: {}, body: Buffer.from("{}") } as unknown as RoutedRequest;
  const api = { turns, admission: { run: () => Promise.resolve({ status: 200 }) }, send: jest.fn() };
  const fail = jest.fn();
  turns.run(exchange, () => {
    const since = performance.now();
    while (performance.now() - since < 5); // uses up this turn
  });
  respond.call(api as unknown as Api, exchange, request, fail);
  return { exchange, read, fail };
}
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

it("a body is parsed and checked when its turn comes", async () => {
  const { read } = waiting();
  expect(read).not.toHaveBeenCalled();
  await turn();
  expect(read).toHaveBeenCalledTimes(1);
});

it.each<[string, (exchange: Exchange) => void]>([
  ["whose client has disconnected", (exchange) => (exchange.isOver = true)],
  ["whose connection is closed", (exchange) => exchange.connection.socket.destroy()],
  ["whose deadline has passed", (exchange) => (exchange.deadline = performance.now())],
])("a body %s when its turn comes is neither parsed nor checked", async (_which, change) => {
  const { exchange, read, fail } = waiting();
  change(exchange);
  await turn();
  expect(read).not.toHaveBeenCalled();
  expect(fail).toHaveBeenCalledWith(expect.objectContaining({ type: "SERVICE_UNAVAILABLE" }));
});
