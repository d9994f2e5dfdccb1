// The packet filter's part of lending a connection (docs/short-cut.md): what the client of a lent connection sends is doubled,
// one copy for the borrower; in the other one the acknowledgement number stays what it was, so that this machine's socket,
// which has not sent the rest, understands it.

import type { SocketAddress } from "../../base/network.ts";
import { Errno } from "./errno.ts";
import {
  beforeTracking,
  type FilterTable,
  Hook,
  ipv4Bytes,
  keyOf,
  ownedTable,
  Verdict,
  word,
} from "./filter_table.ts";
import { CallError } from "./flow_calls.ts";

const lentSet = "lent";
export const receiving = "lend";
const sending = "mute";

export class LenderRules {
  protected readonly table: FilterTable;

  /** Of a table that has lenderTable() and lenderRule(). */
  protected constructor(table: FilterTable) {
    this.table = table;
  }

  /** In a table of nothing else, which the kernel takes away with this thread's socket. Throws CallError. */
  static alone(table: FilterTable): LenderRules {
    try {
      table.change(cannotMake, () => {
        lenderTable(table);
        lenderRule(table);
      });
    } catch (error) {
      table.close();
      throw error;
    }
    return new LenderRules(table);
  }

  /** The table goes with it. */
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

export const cannotMake = "Cannot make a table of the packet filter";

// Within FilterTable.change().

/** The table itself, with the map of lent connections, both chains, and the rule that mutes what is lent. */
export function lenderTable(t: FilterTable): void {
  t.table(ownedTable);
  t.map(lentSet, 1, 12);
  t.chain(receiving, Hook.prerouting, beforeTracking);
  t.chain(sending, Hook.localOut, 0);
  muteRule(t, lentSet);
}

/**
 * Our own socket has nothing to say that the client would take: its acknowledgements have an old sequence number. But their
 * timestamp is newer than that of what the borrower has under way, which the client would drop for it (PAWS, RFC 7323 §5).
 */
export function muteRule(t: FilterTable, set: string): void {
  t.rule(sending, () => {
    t.isTcp();
    t.lookFromPortal(set);
    t.verdict(Verdict.drop);
  });
}

export function lenderRule(t: FilterTable): void {
  t.rule(receiving, () => {
    t.isTcp();
    t.lookFromClient(lentSet);
    // However much the client sends meanwhile, its copies begin where the borrower's window does.
    t.loadTcp(4, word(9));
    t.storeTcp(4, word(6));
    t.passOn(word(4));
    t.storeTcp(4, word(9));
    t.storeTcp(8, word(5));
  });
}
