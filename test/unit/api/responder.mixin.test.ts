import { IncomingMessage, ServerResponse } from "node:http";
import { Socket } from "node:net";
import { loadConfig } from "../../../config";
import { Connection, Holder } from "../../../services/api/connections/connection";
import { Exchange } from "../../../services/api/connections/exchange";
import { LoopTurns } from "../../../services/api/connections/loop-turns";
import type { Api } from "../../../services/api/gateway";
import { responder } from "../../../services/api/responder.mixin";

const { send } = responder(loadConfig({})).methods as unknown as Pick<Api, "send">;

/** Sends a response of a size, when this turn of the event loop has no time left. @param isOverShare of the address's unsent bytes */
function sent(bytes: number, { method = "GET", isOverShare = false } = {}) {
  const [socket, holder, turns] = [new Socket(), new Holder("192.0.2.1"), new LoopTurns()];
  const req = Object.assign(new IncomingMessage(socket), { method });
  const res = new ServerResponse(req);
  const exchange = new Exchange("id", req, res, new Connection(socket, holder, false), holder);
  const markReady = (one: Exchange) => (one.readyAt = performance.now());
  const sendFailure = jest.fn();
  const connections = { markReady, isOverShare: () => isOverShare };
  const api = { turns, connections, baseHeaders: () => ({}), sendFailure } as unknown as Api;
  turns.run(exchange, () => {
    const since = performance.now();
    while (performance.now() - since < 5); // uses up this turn
  });
  const respond = (): void => {
    send.call(api, req, res, { status: 200, text: "x".repeat(bytes) });
  };
  respond();
  return { res, exchange, respond, sendFailure };
}
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

it("a small response is written at once", () => {
  expect(sent(1_000).res.headersSent).toBe(true);
});

it("a large response is written when its turn comes, once", async () => {
  const { res, respond } = sent(100_000);
  respond();
  expect(res.headersSent).toBe(false);
  await turn();
  expect([res.headersSent, res.writableEnded]).toEqual([true, true]);
});

it("a large response to a read beyond its address's share of unsent bytes is refused instead; a small one, and that to a change, is sent", async () => {
  const large = sent(100_000, { isOverShare: true });
  const changed = sent(100_000, { isOverShare: true, method: "POST" });
  await turn();
  expect(large.sendFailure).toHaveBeenCalledWith(expect.anything(), large.res, expect.objectContaining({ type: "TOO_MANY_REQUESTS" }));
  expect([large.res.headersSent, changed.res.headersSent, sent(1_000, { isOverShare: true }).res.headersSent]).toEqual([false, true, true]);
});

it("a large response whose client has disconnected when its turn comes is not written", async () => {
  const { res, exchange } = sent(100_000);
  exchange.isOver = true;
  await turn();
  expect(res.headersSent).toBe(false);
});
