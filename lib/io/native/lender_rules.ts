// What a lender says to the packet filter (docs/short-cut.md): which connections are lent, and to whom. The rules that act on it
// are in flow_rules.ts: one table of the process, whichever thread has the connection.

import type { SocketAddress } from "../../base/network.ts";
import { Errno } from "./errno.ts";
import { type FilterTable, ipv4Bytes, keyOf } from "./filter_table.ts";
import { CallError } from "./flow_calls.ts";

/** Lent connections: the borrower, and what the rules put into packets for our own socket. */
export const lentSet = "lent";

export class LenderRules {
  protected readonly table: FilterTable;

  /** Of a table that FlowRules has made, perhaps in another thread; closes with it. */
  constructor(table: FilterTable) {
    this.table = table;
  }

  close(): void {
    this.table.close();
  }

  /**
   * From now on `borrower` gets a copy of what the client sends, and our own socket sees `acknowledged` acknowledged in all
   * of it. Should it send something again meanwhile, that is its own, and the client has it already.
   */
  lend(
    client: SocketAddress,
    portal: SocketAddress,
    borrower: string,
    acknowledged: number,
    receiveNext: number,
  ): void {
    const value = new Uint8Array(12);
    const view = new DataView(value.buffer);
    value.set(ipv4Bytes(borrower), 0);
    view.setUint32(4, acknowledged);
    view.setUint32(8, receiveNext);
    this.steer(() => this.table.elements(lentSet, [{ key: keyOf(client, portal), value }]));
  }

  /** The connection is our own again. */
  end(client: SocketAddress, portal: SocketAddress): void {
    this.remove(lentSet, keyOf(client, portal));
  }

  protected remove(map: string, key: Uint8Array): void {
    try {
      this.steer(() => this.table.elements(map, [{ key, value: null }]));
    } catch (error) {
      // Somebody has taken the rules away: that is all that was wanted.
      if (!(error instanceof CallError) || error.errno !== Errno.ENOENT) throw error;
    }
  }

  protected steer(changes: () => void): void {
    this.table.change("Cannot steer a connection's packets", changes);
  }
}
