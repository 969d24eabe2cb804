import { callerOf } from "../../../broker/contract";
import { operations } from "../../../contracts/operations";
import { refuseQuery } from "../routing/input";
import { TAKES_NOTHING, type Routes } from "../routing/route";
import { OPERATIONS_EXAMPLE } from "../streams/operations-stream";
import { EVENT_STREAM } from "../streams/stream";

/** What an operations view shows, as it changes. */
export const OPERATIONS_ROUTES: Routes = {
  "GET /admin/events": {
    ...TAKES_NOTHING,
    auth: "admin",
    contract: operations,
    summary: "The state of the whole shop, once per second (server-sent events)",
    description: OPERATIONS_EXAMPLE,
    statuses: [200],
    media: ["text/event-stream"],
    read: (input) => {
      refuseQuery(input);
      return (ctx) => Promise.resolve({ status: 200, headers: EVENT_STREAM, follow: { caller: callerOf(ctx) } });
    },
  },
};
