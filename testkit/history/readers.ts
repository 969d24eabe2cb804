import { Type } from "@sinclair/typebox";
import { nullable } from "../../contracts/contract";
import { Status } from "../../contracts/orders";
import type { Of } from "./operation";
import { parsed, userOf, validated } from "./recorder";

/** @returns the whole response to a GET; undefined if there was none */
export type Get = (path: string) => Promise<{ status: number; text: string } | undefined>;

const Page = Type.Object({
  items: Type.Array(Type.Object({ id: Type.String(), status: Status, created_at: Type.String() })),
  next_cursor: nullable(Type.String()),
});

/**
 * Reads the caller's own orders page by page, up to the last page or the first that fails.
 * @param limit orders per page
 */
export async function walkOrders(get: Get, token: string, limit: number): Promise<Of<"order.list">> {
  const begin = performance.now();
  const pages: Of<"order.list">["pages"] = [];
  let cursor: string | null = null as string | null; // assigned from a response
  do {
    const from = performance.now();
    const response = await get(`/orders?limit=${limit}${cursor === null ? "" : `&cursor=${cursor}`}`);
    if (response?.status !== 200) break;
    const { items, next_cursor } = validated(Page, parsed(response.text));
    pages.push({
      begin: from,
      end: performance.now(),
      items: items.map(({ id, status, created_at }) => ({ id, status, created: Date.parse(created_at) })),
    });
    cursor = next_cursor;
    if (cursor === null)
      return { kind: "order.list", begin, end: performance.now(), outcome: "ok", ...userOf(token), pages, complete: true };
  } while (pages.length < MAX_PAGES);
  const outcome = pages.length > 0 ? { outcome: "ok" as const, end: performance.now() } : { outcome: "unknown" as const };
  return { kind: "order.list", begin, ...outcome, ...userOf(token), pages, complete: false };
}

const MAX_PAGES = 1_000;

/** Opens an event stream. @returns the response, whose body continues */
export type Open = (
  path: string,
  headers: Record<string, string>,
  signal: AbortSignal,
) => Promise<{ status: number; body: AsyncIterable<Uint8Array> | null }>;

const EventData = Type.Object({ status: Status });

/**
 * Follows an order until the server ends the stream, the connection is lost or the client disconnects.
 * @param signal disconnects the client
 * @param onEvent called for each event as it arrives
 */
export async function followOrder(
  open: Open,
  token: string,
  order: string,
  signal: AbortSignal,
  onEvent: (status: Status) => void = () => undefined,
): Promise<Of<"order.stream">> {
  const begin = performance.now();
  const events: Of<"order.stream">["events"] = [];
  let status: number | undefined;
  let closed: Of<"order.stream">["closed"] = "server";
  try {
    const response = await open(`/orders/${order}/events`, {}, signal);
    status = response.status;
    let text = "";
    const decoder = new TextDecoder();
    for await (const chunk of response.body ?? []) {
      text += decoder.decode(chunk, { stream: true });
      const blocks = text.split("\n\n");
      text = blocks.pop() ?? "";
      if (status !== 200) continue;
      for (const block of blocks) {
        const event = eventOf(block);
        if (event === undefined) continue;
        events.push({ at: performance.now(), ...event });
        onEvent(event.status);
      }
    }
  } catch {
    closed = signal.aborted ? "client" : "cut"; // reading a lost connection throws
  }
  const end = performance.now();
  const call = status === undefined || status >= 500 ? { outcome: "unknown" as const } : { outcome: outcomeOf(status), end, status };
  return { kind: "order.stream", begin, ...call, ...userOf(token), order, events, closed };
}

const outcomeOf = (status: number): "ok" | "failed" => (status === 200 ? "ok" : "failed");

/** Parses a block of the stream (WHATWG HTML, 9.2.5). @returns undefined for a comment */
function eventOf(block: string): { id: number; status: Status } | undefined {
  const fields = new Map(
    block.split("\n").map((line): [name: string, value: string | undefined] => {
      const [name = "", value] = line.split(/: (.*)/, 2);
      return [name, value];
    }),
  );
  const [id, data] = [fields.get("id"), fields.get("data")];
  if (id === undefined || data === undefined) return undefined;
  return { id: Number(id), status: validated(EventData, parsed(data)).status };
}
