import type { IncomingMessage } from "node:http";
import { ID_LENGTH, parseId } from "../../contracts/contract";
import * as products from "../../contracts/products";
import type { BatchedCalls } from "./batched-calls";
import type { Exchange } from "./connections/exchange";
import type { Api } from "./gateway";
import { idOr, pathId, refuseQuery, type Input } from "./routing/input";
import { show } from "./routing/responses";
import type { HttpResponse, Routes } from "./routing/route";

/*
 * `GET /products/{id}`, the most frequent read. Most requests take a fast path without moleculer-web, which would take half of their time;
 * all others, such as HEAD or one with a query, take the route. The responses are the same.
 */

const ROUTE_PATH = "/products/:id";
const PREFIX = "/products/";

/** The id of a request that can take the fast path, since it has no query and needs no CORS; undefined for all other requests. */
export function hotProductId({ method, url = "", headers }: IncomingMessage): string | undefined {
  if (method !== "GET" || headers.origin !== undefined || headers.host === undefined) return undefined;
  return url.length === PREFIX.length + ID_LENGTH && url.startsWith(PREFIX) ? parseId(url.slice(PREFIX.length)) : undefined;
}

/** A valid id is all the validation that the read needs. */
const read = async (id: string, input: Pick<Input, "headers" | "requester">, batched: BatchedCalls): Promise<HttpResponse> =>
  show(await batched.product(id, input.requester), input);

/** The fast path. @param id from `hotProductId` */
export async function serveHotRead(gateway: Pick<Api, "admission" | "batched" | "send">, exchange: Exchange, id: string): Promise<void> {
  const { req, res } = exchange;
  exchange.routePath = ROUTE_PATH;
  const response = await gateway.admission.run(
    exchange,
    () => read(id, { headers: req.headers, requester: exchange }, gateway.batched),
    () => exchange.isWanted(),
  );
  gateway.send(req, res, response);
}

/** The route. */
export const HOT_READ: Routes = {
  "GET /products/:id": {
    contract: products.get,
    summary: "A product",
    statuses: [200, 304],
    errors: [],
    auth: "public",
    body: "none",
    supplied: { id: idOr("PRODUCT_NOT_FOUND") },
    lane: "none",
    read: (input) => {
      refuseQuery(input);
      const id = pathId(input, "PRODUCT_NOT_FOUND");
      return (_ctx, batched) => read(id, input, batched);
    },
  },
};
