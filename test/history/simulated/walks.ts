import type { Of } from "../../../testkit/history/operation";
import type { Network } from "./network";
import type { SimulatedShop } from "./shop";

const PAGE = 20;

type Page<K extends "order.list" | "product.list"> = Of<K>["pages"][number];
interface Walk<P> {
  begin: number;
  end?: number;
  outcome: "ok" | "unknown";
  pages: P[];
  complete: boolean;
}

/** Reads a user's orders, newest first, for a number of pages or back to a time (ms since 1970). */
export function listOrders(
  network: Network,
  shop: SimulatedShop,
  user: string,
  { pages = Infinity, since = 0 }: { pages?: number; since?: number },
  done: (operation: Of<"order.list">) => void,
): void {
  walk<Page<"order.list">["items"][number]>(
    network,
    (before) => {
      const own = shop.ordersOf.get(user) ?? [];
      let end = own.length;
      while (before && end > 0 && (own[end - 1]?.id ?? "") >= before.id) end--;
      const page = own.slice(Math.max(0, end - PAGE), end).reverse();
      return page.map(({ id, status, created }) => ({ id, status, created }));
    },
    (count, { created }) => count >= pages || created < since,
    (all) => {
      done({ kind: "order.list", ...all, user });
    },
  );
}

/** Reads all products, or those of one seller, oldest first. */
export function listProducts(
  network: Network,
  shop: SimulatedShop,
  user: string,
  seller: string | undefined,
  done: (operation: Of<"product.list">) => void,
): void {
  walk<Page<"product.list">["items"][number]>(
    network,
    (before) => {
      const all = [...shop.products.values()].filter((product) => seller === undefined || product.seller === seller);
      const page = all.filter(({ id }) => before === undefined || id > before.id).slice(0, PAGE);
      return page.map(({ id, quantity, price, created }) => ({ id, quantity, price, created }));
    },
    () => false,
    (all) => {
      done({ kind: "product.list", ...all, user, ...(seller !== undefined && { seller }) });
    },
  );
}

function walk<I>(
  network: Network,
  read: (after: I | undefined) => I[],
  isEnough: (pages: number, last: I) => boolean,
  done: (walk: Walk<{ begin: number; end: number; items: I[] }>) => void,
): void {
  const begin = network.clock.now;
  const pages: { begin: number; end: number; items: I[] }[] = [];
  const finish = (complete: boolean) => {
    const end = pages.at(-1)?.end;
    done({ begin, ...(end !== undefined && { end }), outcome: end === undefined ? "unknown" : "ok", pages, complete });
  };
  const next = () => {
    network.request(
      () => ({ ok: read(pages.at(-1)?.items.at(-1)) }),
      ({ call, seen: { seen: items } }) => {
        if (items === undefined || call.end === undefined) {
          finish(false);
          return;
        }
        pages.push({ begin: call.begin, end: call.end, items });
        const last = items.at(-1);
        if (last === undefined || items.length < PAGE) finish(true);
        else if (isEnough(pages.length, last)) finish(false);
        else next();
      },
    );
  };
  next();
}
