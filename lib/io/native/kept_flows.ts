// The packet filter's part of a restart (docs/short-cut.md, "A restart of the entry"): a table of which no process is the owner
// passes the packets of moved connections on while the member's process is away. Its elements end by themselves.

import type { KeptFlow } from "../../base/flow.ts";
import { beforeTracking, FilterTable, Hook, ipv4Bytes, keyOf, movedSet } from "./filter_table.ts";

const receiving = "keep";

/** From now on, whatever becomes of this process, for `timeMs`. Throws CallError, and nothing is kept then. */
export function keepFlows(name: string, flows: readonly KeptFlow[], timeMs: number): void {
  inTable(name, (table) => {
    table.remove(); // what an older process has left
    table.change("Cannot make a table of the packet filter that outlives the process", () => {
      table.table(0);
      table.map(movedSet, 1, 4, timeMs);
      table.chain(receiving, Hook.prerouting, beforeTracking);
      table.movedRules(receiving);
      if (flows.length === 0) return;
      table.elements(
        movedSet,
        flows.map(({ client, portal, owner }) => ({ key: keyOf(client, portal), value: ipv4Bytes(owner) })),
      );
    });
  });
}

/** Nothing is kept any more under this name. */
export function keepNoFlows(name: string): void {
  inTable(name, (table) => table.remove());
}

function inTable(name: string, work: (table: FilterTable) => void): void {
  const table = new FilterTable(`plimsoll_kept_${name}`);
  try {
    work(table);
  } finally {
    table.close();
  }
}
