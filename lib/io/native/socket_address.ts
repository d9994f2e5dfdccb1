// Numeric addresses as struct sockaddr_in and sockaddr_in6.

import type { SocketAddress } from "../../base/network.ts";
import { cString, type Libc } from "./libc.ts";

export const familyInet = 2;
export const familyInet6 = 10;
const sockaddrBytesMax = 28;
const textBytesMax = 46;

export interface RawAddress {
  readonly family: number;
  readonly bytes: Uint8Array<ArrayBuffer>;
}

/** Throws when the address is not numeric. */
export function rawAddress(c: Libc, address: SocketAddress): RawAddress {
  const inet6 = address.hostname.includes(":");
  const bytes = new Uint8Array(inet6 ? 28 : 16);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, inet6 ? familyInet6 : familyInet, true);
  view.setUint16(2, address.port);
  const ip = new Uint8Array(16);
  if (c.inet_pton(inet6 ? familyInet6 : familyInet, cString(address.hostname), ip) !== 1) {
    throw new Error(`"${address.hostname}" is no numeric IP address`);
  }
  bytes.set(inet6 ? ip : ip.subarray(0, 4), inet6 ? 8 : 4);
  return { family: inet6 ? familyInet6 : familyInet, bytes };
}

/** The address of a socket's own end or of its peer; port 0 when the peer has gone already. */
export function socketAddress(c: Libc, fd: number, end: "local" | "remote"): SocketAddress {
  const bytes = new Uint8Array(sockaddrBytesMax);
  const length = new Uint32Array([sockaddrBytesMax]);
  const result = end === "local" ? c.getsockname(fd, bytes, length) : c.getpeername(fd, bytes, length);
  if (result < 0) return { hostname: "0.0.0.0", port: 0 };
  const view = new DataView(bytes.buffer);
  const family = view.getUint16(0, true);
  const ip = bytes.slice(family === familyInet6 ? 8 : 4);
  const text = new Uint8Array(textBytesMax);
  c.inet_ntop(family, ip, text, textBytesMax);
  return {
    hostname: new TextDecoder().decode(text.subarray(0, text.indexOf(0))),
    port: view.getUint16(2),
  };
}
