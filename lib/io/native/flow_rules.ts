// The packet filter's part of lending and moving connections (docs/short-cut.md): one table, which the kernel takes away with the
// socket that made it. The lender's rules are in lender_rules.ts.
// As the machine whose connection has become another's: what the client sends goes there, and nothing leaves from here.
// As the borrower or new owner: what others pass on, and nothing else, is let in to the sockets that wait for it.

import type { SocketAddress } from "../../base/network.ts";
import { FilterTable, ipv4Bytes, keyOf, Meta, movedSet, Verdict, word } from "./filter_table.ts";
import { cannotMake, lenderRule, LenderRules, lenderTable, muteRule, receiving } from "./lender_rules.ts";

const socketTransparent = 0;

export class FlowRules extends LenderRules {
  /** Of this table alone in its network namespace; the mark of packets that are for borrowed connections. */
  readonly mark: number;
  /** Keys of `movedSet`, hexadecimal. */
  readonly #moved = new Set<string>();

  /** Makes the table; throws CallError where the kernel cannot. `number`: of the process, 22 bits at most. */
  constructor(number: number) {
    const { mark, table } = freeTable(number);
    super(table);
    this.mark = mark;
    try {
      this.#make();
    } catch (error) {
      table.close();
      throw error;
    }
  }

  /** From now on what the client sends goes to `owner`, and our own socket neither hears nor says anything. */
  move(client: SocketAddress, portal: SocketAddress, owner: string): void {
    const key = keyOf(client, portal);
    // One change: there is no moment without a rule.
    this.steer(() => {
      if (this.#moved.has(key.toHex())) this.table.elements(movedSet, [{ key, value: null }]);
      this.table.elements(movedSet, [{ key, value: ipv4Bytes(owner) }]);
    });
    this.#moved.add(key.toHex());
  }

  /** What the client sends is for our own socket, or meets none. */
  endMove(client: SocketAddress, portal: SocketAddress): void {
    const key = keyOf(client, portal);
    if (this.#moved.delete(key.toHex())) this.remove(movedSet, key);
  }

  #make(): void {
    const t = this.table;
    t.change(cannotMake, () => {
      lenderTable(t);
      t.map(movedSet, 2, 4);
      muteRule(t, movedSet);
      t.movedRules(receiving);
      lenderRule(t);
      t.rule(receiving, () => {
        t.isPassedOn();
        t.numbers("socket", [[1, socketTransparent], [2, word(0)]]);
        t.compare(word(0), Uint8Array.of(1));
        t.immediate(word(0), new Uint8Array(new Uint32Array([this.mark]).buffer));
        t.numbers("meta", [[2, Meta.mark], [3, word(0)]]);
        t.verdict(Verdict.accept);
      });
      t.rule(receiving, () => {
        t.isPassedOn(); // too late or too early: nobody may answer it
        t.verdict(Verdict.drop);
      });
    });
  }
}

/** The rules of another thread of the process, which lends and does nothing else. `mark`: of the process's own. */
export function lenderRulesOf(mark: number, thread: number): LenderRules {
  return LenderRules.alone(new FilterTable(`${tableName(mark)}_${thread}`));
}

/** Another process may have the same number in another PID namespace. */
function freeTable(number: number): { readonly mark: number; readonly table: FilterTable } {
  for (let mark = markOf(number);; mark++) {
    const table = new FilterTable(tableName(mark));
    try {
      if (!table.exists()) return { mark, table };
    } catch (error) {
      table.close();
      throw error;
    }
    table.close();
  }
}

/** Marks and numbers of routing tables of ours: 5h, then the process's number. */
export function markOf(number: number): number {
  return 0x5000_0000 + (number & 0x3f_ffff);
}

function tableName(mark: number): string {
  return `plimsoll_${mark.toString(16)}`;
}

/** Whether the process that made routes with this mark is still there. */
export function markInUse(mark: number): boolean {
  const table = new FilterTable(tableName(mark));
  try {
    return table.exists();
  } finally {
    table.close();
  }
}
