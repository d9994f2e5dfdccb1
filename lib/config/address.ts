// Addresses as a configuration has them: numeric, with a port, of one interface.

import type { SocketAddress } from "../base/network.ts";

export type AddressParse =
  | { readonly kind: "address"; readonly address: SocketAddress }
  | { readonly kind: "invalid"; readonly reason: string };

/** "1.2.3.4:3260" or "[::1]:3260". Names are refused (they may change their mind), and so are 0.0.0.0 and [::]. */
export function parseAddress(text: string): AddressParse {
  if (/^[0-9a-f]*:.*:/i.test(text)) return invalid('an IPv6 address needs brackets, like "[::1]:3260"');
  const match = /^(?:\[([^\]]*)\]|([^:[\]]*))(?::(.*))?$/s.exec(text);
  if (match === null) {
    return invalid(
      text.includes("::") ? 'an IPv6 address needs brackets: "[::1]:3260"' : "it is not an address",
    );
  }
  const hostname = match[1] === undefined ? ipv4(match[2]!) : ipv6(match[1]);
  if (hostname === null) {
    return invalid(
      match[1] === undefined && /[a-z]/i.test(match[2]!)
        ? "it has a name where a numeric address belongs"
        : `${JSON.stringify(match[1] ?? match[2])} is not an IP address`,
    );
  }
  if (match[3] === undefined) return invalid(`it has no port: "${text}:3260" has one`);
  const port = /^[0-9]{1,5}$/.test(match[3]) ? Number(match[3]) : 0;
  if (port < 1 || port > 65535) return invalid(`${JSON.stringify(match[3])} is not a port from 1 to 65535`);
  if (hostname === "0.0.0.0" || hostname === "::" || hostname === "::ffff:0:0") {
    return invalid("it means every interface, and others could not be told which");
  }
  return { kind: "address", address: { hostname, port } };
}

/** True for 127.0.0.0/8 and ::1. */
export function isLoopback(address: Pick<SocketAddress, "hostname">): boolean {
  return /^127\.\d+\.\d+\.\d+$/.test(address.hostname) || address.hostname === "::1";
}

function ipv4(text: string): string | null {
  const parts = text.split(".");
  if (parts.length !== 4) return null;
  return parts.every((part) => /^(0|[1-9][0-9]{0,2})$/.test(part) && Number(part) <= 255) ? text : null;
}

/** The short form of RFC 5952, which URL gives. */
function ipv6(text: string): string | null {
  if (!/^[0-9a-f:.]+$/i.test(text)) return null;
  const url = URL.parse(`http://[${text}]/`);
  return url === null ? null : url.hostname.slice(1, -1);
}

function invalid(reason: string): AddressParse {
  return { kind: "invalid", reason };
}
