// The packet filter's part of lending a connection (docs/short-cut.md): one table, which the kernel takes away with the
// socket that made it. As the lender: what the client of a lent connection sends is doubled, one copy for the borrower; in
// the other one the acknowledgement number stays what it was, so that this machine's socket, which has not sent the rest,
// understands it.
// As the machine whose connection has become another's: what the client sends goes there, and nothing leaves from here.
// As the borrower or new owner: those copies, and nothing else, are let in to the sockets that wait for them.

import type { SharedRules } from "../../base/flow.ts";
import type { SocketAddress } from "../../base/network.ts";
import {
  beforeTracking,
  FilterTable,
  Hook,
  ipv4Bytes,
  keyOf,
  Meta,
  movedSet,
  ownedTable,
  Verdict,
  word,
} from "./filter_table.ts";
import { LenderRules, lentSet } from "./lender_rules.ts";
import type { ThreadLock } from "./thread_lock.ts";

const receiving = "lend";
const sending = "mute";
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

  /** For another thread, which takes the lock for every change, as this one does from now on. */
  share(lock: ThreadLock): SharedRules {
    return { mark: this.mark, descriptor: this.table.share(lock) };
  }

  #make(): void {
    const t = this.table;
    t.change("Cannot make a table of the packet filter", () => {
      t.table(ownedTable);
      t.map(lentSet, 1, 12);
      t.map(movedSet, 2, 4);
      t.chain(receiving, Hook.prerouting, beforeTracking);
      t.chain(sending, Hook.localOut, 0);
      for (const set of [lentSet, movedSet]) t.rule(sending, () => this.#muteRule(set));
      t.movedRules(receiving);
      t.rule(receiving, () => this.#lenderRule());
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

  /**
   * Our own socket has nothing to say that the client would take: its acknowledgements have an old sequence number. But their
   * timestamp is newer than that of what the borrower has under way, which the client would drop for it (PAWS, RFC 7323 §5).
   */
  #muteRule(set: string): void {
    this.table.isTcp();
    this.table.lookFromPortal(set);
    this.table.verdict(Verdict.drop);
  }

  #lenderRule(): void {
    const t = this.table;
    t.isTcp();
    t.lookFromClient(lentSet);
    // However much the client sends meanwhile, its copies begin where the borrower's window does.
    t.loadTcp(4, word(9));
    t.storeTcp(4, word(6));
    t.passOn(word(4));
    t.storeTcp(4, word(9));
    t.storeTcp(8, word(5));
  }
}

/** The lender's part of the process's rules in another thread; `thread`: its number, from 1 on. */
export function rulesOfThread(
  { mark, descriptor }: SharedRules,
  lock: ThreadLock,
  thread: number,
): LenderRules {
  return new LenderRules(new FilterTable(tableName(mark), { descriptor, lock, thread }));
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
