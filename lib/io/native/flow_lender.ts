// What a thread needs to lend its connections (docs/short-cut.md): rules, packets made by hand, and who is a neighbour. An I/O
// worker has this alone; the owner of the data plane has FlowTools, which borrow and move connections as well.

import type { FlowPoint } from "../../base/flow.ts";
import type { SocketAddress } from "../../base/network.ts";
import { ipv4Bytes } from "./filter_table.ts";
import type { LenderRules } from "./lender_rules.ts";
import type { NativeLoop } from "./loop.ts";
import { Neighbours } from "./neighbours.ts";
import { RawPackets } from "./raw_packets.ts";
import { RouteLookup } from "./route_lookup.ts";

export class FlowLender {
  readonly rules: LenderRules;
  readonly packets: RawPackets;
  readonly #lookup: RouteLookup;
  readonly #neighbours: Neighbours;
  #closed = false;

  /** The rules are its own and close with it, also where it cannot be had. Throws CallError. */
  constructor(loop: NativeLoop, rules: LenderRules) {
    this.rules = rules;
    let packets: RawPackets | null = null;
    try {
      this.packets = packets = new RawPackets();
      this.#lookup = new RouteLookup();
    } catch (error) {
      packets?.close();
      rules.close();
      throw error;
    }
    const lookup = this.#lookup;
    this.#neighbours = new Neighbours(
      () => loop.turnMs,
      (address) => lookup.isNeighbour(ipv4Bytes(address)),
    );
  }

  /** Makes the client say at once what it has received. */
  provoke(lent: FlowPoint): void {
    if (this.#closed) return;
    try {
      this.packets.provoke(lent);
    } catch { /* it finds out by itself, later */ }
  }

  close(): void {
    this.#closed = true;
    this.#lookup.close();
    this.packets.close();
    this.rules.close();
  }

  /** Why a connection cannot be given to this address; null: it can be. */
  lendProblem(portal: SocketAddress, client: SocketAddress, borrower: string): string | null {
    if ([portal.hostname, client.hostname, borrower].some((address) => address.includes(":"))) {
      return "it is an IPv6 connection";
    }
    if (client.hostname === portal.hostname || client.hostname.startsWith("127.")) {
      return "the initiator is on this machine";
    }
    return this.reaches(borrower) ? null : `${borrower} is no neighbour in a network of this machine`;
  }

  /** Whether the address is this machine's own. */
  owns(address: string): boolean {
    return !address.includes(":") && this.#lookup.isLocal(ipv4Bytes(address));
  }

  reaches(address: string): boolean {
    if (address.includes(":")) return false;
    return this.#neighbours.has(address);
  }
}
