import type { IncomingMessage } from "node:http";
import { ClientAddress } from "../../../../services/api/http/client-address";

const PROXIES = ["10.0.0.0/8"];

/** A request from a proxy, with these lists. */
const request = (schemes: string, addresses: string, peer = "10.0.0.1"): IncomingMessage =>
  ({
    headers: { "x-forwarded-for": addresses, "x-forwarded-proto": schemes },
    socket: { remoteAddress: peer },
  }) as unknown as IncomingMessage;

describe("X-Forwarded-Proto", () => {
  const address = new ClientAddress(PROXIES);

  it.each([
    ["https", "203.0.113.7", true],
    ["HTTPS", "203.0.113.7", true],
    ["http", "203.0.113.7", false],
    ["https,http", "203.0.113.7, 10.0.0.2", true],
    ["https , http", "203.0.113.7, 10.0.0.2", true],
    ["http,https", "203.0.113.7, 10.0.0.2", false],
    ["https", "203.0.113.7, 10.0.0.2", true],
    ["https,http", "203.0.113.7", false], // the client wrote "https", and its proxy appended "http"
    ["http,https", "203.0.113.7", true],
    ["", "203.0.113.7", false],
  ])("%j of the proxies behind %j: the client's connection is encrypted: %s", (schemes, addresses, expected) => {
    expect(address.isSecure(request(schemes, addresses))).toBe(expected);
  });

  it("of anyone else counts for nothing", () => {
    expect(address.isSecure(request("https", "203.0.113.7", "198.51.100.1"))).toBe(false);
    expect(new ClientAddress([]).isSecure(request("https", "203.0.113.7"))).toBe(false);
  });
});
