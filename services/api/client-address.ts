import type { IncomingMessage } from "node:http";
import ipaddr from "ipaddr.js";
import proxyaddr from "proxy-addr";

/** Hextets of an IPv6 address that tell one customer of a provider from another (RFC 6177): the rest he may choose himself. */
const SITE = 4;

/** Most proxies that a request may have come through: each address is parsed, and 5,000 of them fit into a header. */
const MAX_HOPS = 32;

/** Where requests come from, as far as it can be believed: X-Forwarded-For and -Proto count from the proxies that are trusted alone. */
export class ClientAddress {
  private readonly trust: (address: string, hop: number) => boolean;

  /** @param proxies addresses, ranges of CIDR, or `loopback`, `linklocal`, `uniquelocal` */
  constructor(proxies: readonly string[]) {
    const isTrusted = proxyaddr.compile([...proxies]);
    this.trust = (address, hop) => hop < MAX_HOPS && isTrusted(address, hop);
  }

  /** The name to count a client by: its IPv4 address, or the network of its IPv6 address. */
  of(req: IncomingMessage): string {
    return this.ofPeer(proxyaddr(req, this.trust));
  }

  /** The same, of a socket's own peer. */
  ofPeer(peer: string): string {
    const address = withoutPort(peer);
    if (!ipaddr.isValid(address)) return "unknown"; // a proxy wrote something else, or the socket is closed
    const parsed = ipaddr.process(address);
    return parsed instanceof ipaddr.IPv6
      ? `${parsed.parts
          .slice(0, SITE)
          .map((part) => part.toString(16))
          .join(":")}::/64`
      : parsed.toString();
  }

  /** Whether an address is that of a proxy whose headers count. */
  isTrusted(address: string): boolean {
    return this.trust(address, 0);
  }

  /** Whether a trusted proxy says that the client came by TLS. */
  isSecure(req: IncomingMessage): boolean {
    const { remoteAddress } = req.socket;
    return remoteAddress !== undefined && this.trust(remoteAddress, 0) && req.headers["x-forwarded-proto"] === "https";
  }
}

/** Some proxies write `203.0.113.7:51234`, or `[2001:db8::1]:51234`. */
const withoutPort = (address: string): string =>
  /^\[(.*)\](:\d+)?$/.exec(address)?.[1] ?? /^(\d+(?:\.\d+){3}):\d+$/.exec(address)?.[1] ?? address;
