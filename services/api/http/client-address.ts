import type { IncomingMessage } from "node:http";
import ipaddr from "ipaddr.js";
import proxyaddr from "proxy-addr";

/** Hextets of an IPv6 address that identify a provider's customer (RFC 6177): customers choose the rest themselves. */
const SITE = 4;

/** Maximum number of proxies that are followed: each address is parsed, and 5,000 of them fit into a header. */
const MAX_HOPS = 32;

/** Finds a request's client address. X-Forwarded-For and X-Forwarded-Proto are used only if a trusted proxy sent them. */
export class ClientAddress {
  private readonly trust: (address: string, hop: number) => boolean;

  /** @param proxies addresses, CIDR ranges, or `loopback`, `linklocal`, `uniquelocal` */
  constructor(proxies: readonly string[]) {
    const isTrusted = proxyaddr.compile([...proxies]);
    this.trust = (address, hop) => hop < MAX_HOPS && isTrusted(address, hop);
  }

  /** The key that limits are counted by: the client's IPv4 address, or the /64 network of its IPv6 address. */
  of(req: IncomingMessage): string {
    return this.ofPeer(proxyaddr(req, this.trust));
  }

  /** As `of`, for a socket's peer address. */
  ofPeer(peer: string): string {
    const address = withoutPort(peer);
    if (!ipaddr.isValid(address)) return "unknown"; // a proxy sent something else, or the socket is closed
    const parsed = ipaddr.process(address);
    return parsed instanceof ipaddr.IPv6
      ? `${parsed.parts
          .slice(0, SITE)
          .map((part) => part.toString(16))
          .join(":")}::/64`
      : parsed.toString();
  }

  /** Whether an address belongs to a trusted proxy. */
  isTrusted(address: string): boolean {
    return this.trust(address, 0);
  }

  /**
   * Whether a trusted proxy reports that the client connected over TLS. In a list, each proxy has appended the scheme of its own client:
   * what stands before the entry of the outermost trusted proxy was sent by the client.
   */
  isSecure(req: IncomingMessage): boolean {
    const header = req.headers["x-forwarded-proto"];
    if (typeof header !== "string") return false;
    const proxies = proxyaddr.all(req, this.trust).length - 1; // the last address is the client's
    if (proxies === 0) return false;
    const schemes = header.split(",");
    return schemes[Math.max(0, schemes.length - proxies)]?.trim().toLowerCase() === "https";
  }
}

/** Some proxies write `203.0.113.7:51234`, or `[2001:db8::1]:51234`. */
const withoutPort = (address: string): string =>
  /^\[(.*)\](:\d+)?$/.exec(address)?.[1] ?? /^(\d+(?:\.\d+){3}):\d+$/.exec(address)?.[1] ?? address;
