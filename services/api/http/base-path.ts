import type { IncomingMessage } from "node:http";

/*
 * BASE_PATH, the path under which a proxy publishes the gateway. Requests arrive with it: it is removed from their targets at once and
 * added to the URLs of responses, so routes, limits, logs and metrics know only paths without it.
 */

/** Precedes a target that is not below the base path. No route has such a path. */
const OUTSIDE = "/..";

/** With an issuer that has a path, clients look for the metadata here, followed by that path (RFC 8414, 3.1). */
const METADATA = "/.well-known/oauth-authorization-server";

/** Makes a request's target relative to the base path, which must not be empty. */
export function leaveBasePath(req: IncomingMessage, basePath: string): void {
  const { url = "" } = req;
  if (!url.startsWith("/")) return; // `*`, or a target that is refused anyway
  if (url === METADATA + basePath) {
    req.url = METADATA;
    return;
  }
  const rest = url.slice(basePath.length);
  if (!url.startsWith(basePath) || !/^(?:[/?]|$)/.test(rest)) req.url = OUTSIDE + url;
  else req.url = rest.startsWith("/") ? rest : `/${rest}`;
}

/** Whether a path that `leaveBasePath` has changed is not below the base path. */
export const isOutside = (path: string): boolean => path.startsWith(`${OUTSIDE}/`);

/** Adds the base path to the URLs in a response's headers. */
export function withBasePath(headers: Readonly<Record<string, string>>, basePath: string): Record<string, string> {
  const { Location, Link } = headers;
  return {
    ...headers,
    ...(Location !== undefined && { Location: basePath + Location }),
    ...(Link !== undefined && { Link: Link.replace("<", `<${basePath}`) }),
  };
}
