// What the kernel's routing says of an address: whether it is a neighbour's, or this machine's own.

import { CallError } from "./flow_calls.ts";
import { attributesOf, NetlinkBatch, NetlinkSocket, Request } from "./netlink.ts";

export const netlinkRoute = 0;
export const inet = 2;
const Message = { newRoute: 24, getRoute: 26 };
/** `otherGateway` (RTA_VIA): of another family of addresses (RFC 5549). */
const Route = { destination: 1, gateway: 5, otherGateway: 18 };
const unicastType = 1; // RTN_UNICAST
export const localType = 2; // RTN_LOCAL

export class RouteLookup {
  readonly #socket = new NetlinkSocket(netlinkRoute);
  readonly #batch = new NetlinkBatch();

  close(): void {
    this.#socket.close();
  }

  /** Whether `address` is a neighbour: packets for it go to it, not to a gateway. */
  isNeighbour(address: Uint8Array): boolean {
    const way = this.#wayTo(address);
    return way !== null && way.type === unicastType && !way.gateway;
  }

  isLocal(address: Uint8Array): boolean {
    return this.#wayTo(address)?.type === localType;
  }

  /** Null: the kernel has no way there. */
  #wayTo(address: Uint8Array): { readonly type: number; readonly gateway: boolean } | null {
    const b = this.#batch;
    b.clear();
    const header = routeHeader(32, 0, 0, 0);
    b.message(Message.getRoute, Request.acknowledge, header, () => b.attribute(Route.destination, address));
    try {
      const [body] = this.#socket.list(b, "Cannot look up a route", Message.newRoute);
      if (body === undefined) return null;
      const attributes = [...attributesOf(body, header.length)].map(([type]) => type);
      const gateway = attributes.includes(Route.gateway) || attributes.includes(Route.otherGateway);
      return { type: body.getUint8(7), gateway };
    } catch (error) {
      if (error instanceof CallError) return null;
      throw error;
    }
  }
}

/** struct rtmsg: family, lengths, type of service, table, protocol, scope, type, flags. */
export function routeHeader(length: number, protocol: number, scope: number, type: number): Uint8Array {
  return Uint8Array.of(inet, length, 0, 0, 0, protocol, scope, type, 0, 0, 0, 0);
}
