// The packet filter's part of lending a connection (docs/short-cut.md): one table, which the kernel takes away with the
// socket that made it. As the lender: what the client of a lent connection sends is doubled, one copy for the borrower; in
// the other one the acknowledgement number stays what it was, so that this machine's socket, which has not sent the rest,
// understands it.
// As the machine whose connection has become another's: what the client sends goes there, and nothing leaves from here.
// As the borrower or new owner: those copies, and nothing else, are let in to the sockets that wait for them.

import type { SocketAddress } from "../../base/network.ts";
import { limits } from "../../base/limits.ts";
import { CallError } from "./flow_calls.ts";
import { Errno } from "./errno.ts";
import { bigEndian, NetlinkBatch, NetlinkSocket, Request, zeroTerminated } from "./netlink.ts";

const netlinkNetfilter = 12;
const subsystemTables = 10;
const batchBegin = 0x10;
const batchEnd = 0x11;
const inet = 2;

const Message = {
  newTable: 0,
  getTable: 1,
  newChain: 3,
  newRule: 6,
  newSet: 9,
  newSetElement: 12,
  deleteSetElement: 14,
};
const ownedTable = 2; // NFT_TABLE_F_OWNER
const mapOfValues = 0x8; // NFT_SET_MAP
const prerouting = 0;
const localOut = 3;
/** Before connection tracking, which so sees what the socket sees. */
const priority = -301;
const lentSet = "lent";
const movedSet = "moved";
const receiving = "lend";
const sending = "mute";

// Registers: four of 16 bytes, the same memory as 16 of four bytes from 8 on.
const verdictRegister = 0;
const keyRegister = 1;
const valueRegister = 2;
const word = (n: number) => 8 + n;

const Base = { network: 1, transport: 2 };
const Meta = { mark: 3, layer4Protocol: 16 };
const inetChecksum = 1;
const socketTransparent = 0;
const integerType = 4;
const Verdict = { drop: 0, accept: 1 };
const tcp = 6;
/** Time to live of the borrower's copy: it has come from the neighbour that lends, and goes nowhere from there. */
const copyTimeToLive = 0;

/** An address for the four-byte registers. */
export function ipv4Bytes(hostname: string): Uint8Array {
  return Uint8Array.from(hostname.split("."), Number);
}

/** Client and portal, padded as registers are. */
function keyOf(client: SocketAddress, portal: SocketAddress): Uint8Array {
  const key = new Uint8Array(16);
  const view = new DataView(key.buffer);
  key.set(ipv4Bytes(client.hostname), 0);
  view.setUint16(4, client.port);
  key.set(ipv4Bytes(portal.hostname), 8);
  view.setUint16(12, portal.port);
  return key;
}

export class FlowRules {
  /** Of this table alone in its network namespace; the mark of packets that are for borrowed connections. */
  readonly mark: number;
  readonly #socket: NetlinkSocket;
  readonly #batch = new NetlinkBatch();
  readonly #table: Uint8Array;
  /** Keys of `movedSet`, hexadecimal. */
  readonly #moved = new Set<string>();

  /** Makes the table; throws CallError where the kernel cannot. `number`: of the process, 22 bits at most. */
  constructor(number: number) {
    this.#socket = new NetlinkSocket(netlinkNetfilter);
    let mark = markOf(number);
    // Another process may have the same number in another PID namespace.
    while (tableExists(this.#socket, this.#batch, mark)) mark++;
    this.mark = mark;
    this.#table = zeroTerminated(tableName(mark));
    try {
      this.#make();
    } catch (error) {
      this.#socket.close();
      throw error;
    }
  }

  /** The table goes with it. */
  close(): void {
    this.#socket.close();
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
    const b = this.#begin();
    this.#element(b, lentSet, Message.newSetElement, Request.create, keyOf(client, portal), value);
    this.#commit("Cannot steer a connection's packets");
  }

  /** The connection is our own again. */
  end(client: SocketAddress, portal: SocketAddress): void {
    this.#remove(lentSet, keyOf(client, portal));
  }

  /** From now on what the client sends goes to `owner`, and our own socket neither hears nor says anything. */
  move(client: SocketAddress, portal: SocketAddress, owner: string): void {
    const key = keyOf(client, portal);
    const b = this.#begin();
    // One change: there is no moment without a rule.
    if (this.#moved.has(key.toHex())) this.#element(b, movedSet, Message.deleteSetElement, 0, key, null);
    this.#element(b, movedSet, Message.newSetElement, Request.create, key, ipv4Bytes(owner));
    this.#commit("Cannot steer a connection's packets");
    this.#moved.add(key.toHex());
  }

  /** What the client sends is for our own socket, or meets none. */
  endMove(client: SocketAddress, portal: SocketAddress): void {
    const key = keyOf(client, portal);
    if (this.#moved.delete(key.toHex())) this.#remove(movedSet, key);
  }

  #remove(set: string, key: Uint8Array): void {
    const b = this.#begin();
    this.#element(b, set, Message.deleteSetElement, 0, key, null);
    try {
      this.#commit("Cannot steer a connection's packets");
    } catch (error) {
      // Somebody has taken the rules away: that is all that was wanted.
      if (!(error instanceof CallError) || error.errno !== Errno.ENOENT) throw error;
    }
  }

  #element(
    b: NetlinkBatch,
    set: string,
    type: number,
    flags: number,
    key: Uint8Array,
    value: Uint8Array | null,
  ): void {
    this.#add(type, flags, () => {
      b.attribute(1, this.#table);
      b.attribute(2, zeroTerminated(set));
      b.nest(3, () =>
        b.nest(1, () => {
          b.nest(1, () => b.attribute(1, key));
          if (value !== null) b.nest(2, () => b.attribute(1, value));
        }));
    });
  }

  #make(): void {
    const b = this.#begin();
    this.#add(Message.newTable, Request.create | Request.exclusive, () => {
      b.attribute(1, this.#table);
      b.attribute(2, bigEndian(ownedTable));
    });
    this.#map(lentSet, 1, 12);
    this.#map(movedSet, 2, 4);
    this.#chain(receiving, prerouting, priority);
    this.#chain(sending, localOut, 0);
    for (const set of [lentSet, movedSet]) this.#rule(sending, () => this.#muteRule(set));
    this.#rule(receiving, () => this.#stragglerRule());
    this.#rule(receiving, () => this.#movedRule());
    this.#rule(receiving, () => this.#lenderRule());
    this.#rule(receiving, () => {
      this.#isCopy();
      this.#expression("socket", () => {
        b.attribute(1, bigEndian(socketTransparent));
        b.attribute(2, bigEndian(word(0)));
      });
      this.#compare(word(0), Uint8Array.of(1));
      this.#immediate(word(0), new Uint8Array(new Uint32Array([this.mark]).buffer));
      this.#expression("meta", () => {
        b.attribute(2, bigEndian(Meta.mark));
        b.attribute(3, bigEndian(word(0)));
      });
      this.#verdict(Verdict.accept);
    });
    this.#rule(receiving, () => {
      this.#isCopy(); // too late or too early: nobody may answer it
      this.#verdict(Verdict.drop);
    });
    this.#commit("Cannot make a table of the packet filter");
  }

  /**
   * Our own socket has nothing to say that the client would take: its acknowledgements have an old sequence number. But their
   * timestamp is newer than that of what the borrower has under way, which the client would drop for it (PAWS, RFC 7323 §5).
   */
  #muteRule(set: string): void {
    this.#isTcp();
    this.#look(set, 16, 2, 12, 0, null);
    this.#verdict(Verdict.drop);
  }

  /** What others have passed on to us is not passed on further: it would go round in circles. It is sent again. */
  #stragglerRule(): void {
    this.#isCopy();
    this.#look(movedSet, 12, 0, 16, 2, valueRegister);
    this.#verdict(Verdict.drop);
  }

  #movedRule(): void {
    this.#isTcp();
    this.#look(movedSet, 12, 0, 16, 2, valueRegister);
    this.#passOn(word(4));
    this.#verdict(Verdict.drop);
  }

  /** A copy goes to the neighbour whose address is in the register, and no further. */
  #passOn(register: number): void {
    this.#immediate(word(8), Uint8Array.of(copyTimeToLive + 1)); // doubling counts one down
    this.#store(word(8), Base.network, 8, 1, 10);
    this.#expression("dup", () => this.#batch.attribute(1, bigEndian(register)));
  }

  /** Looks for the connection: client and portal by where their addresses and ports are in the packet. */
  #look(
    set: string,
    clientAt: number,
    clientPortAt: number,
    portalAt: number,
    portalPortAt: number,
    value: number | null,
  ): void {
    this.#load(Base.network, clientAt, 4, word(0));
    this.#load(Base.transport, clientPortAt, 2, word(1));
    this.#load(Base.network, portalAt, 4, word(2));
    this.#load(Base.transport, portalPortAt, 2, word(3));
    this.#expression("lookup", () => {
      this.#batch.attribute(1, zeroTerminated(set));
      this.#batch.attribute(2, bigEndian(keyRegister));
      if (value !== null) this.#batch.attribute(3, bigEndian(value));
    });
  }

  #lenderRule(): void {
    this.#isTcp();
    this.#look(lentSet, 12, 0, 16, 2, valueRegister);
    // However much the client sends meanwhile, its copies begin where the borrower's window does.
    this.#load(Base.transport, 4, 4, word(9));
    this.#store(word(6), Base.transport, 4, 4, 16);
    this.#passOn(word(4));
    this.#store(word(9), Base.transport, 4, 4, 16);
    this.#store(word(5), Base.transport, 8, 4, 16);
  }

  #isTcp(): void {
    this.#expression("meta", () => {
      this.#batch.attribute(1, bigEndian(word(0)));
      this.#batch.attribute(2, bigEndian(Meta.layer4Protocol));
    });
    this.#compare(word(0), Uint8Array.of(tcp));
  }

  #isCopy(): void {
    this.#isTcp();
    this.#load(Base.network, 8, 1, word(0));
    this.#compare(word(0), Uint8Array.of(copyTimeToLive));
  }

  #load(base: number, offset: number, bytes: number, register: number): void {
    this.#expression("payload", () => {
      this.#batch.attribute(1, bigEndian(register));
      this.#place(base, offset, bytes);
    });
  }

  /** Writes into the packet, and mends the checksum at `checksumOffset`. */
  #store(register: number, base: number, offset: number, bytes: number, checksumOffset: number): void {
    this.#expression("payload", () => {
      this.#place(base, offset, bytes);
      this.#batch.attribute(5, bigEndian(register));
      this.#batch.attribute(6, bigEndian(inetChecksum));
      this.#batch.attribute(7, bigEndian(checksumOffset));
    });
  }

  #place(base: number, offset: number, bytes: number): void {
    this.#batch.attribute(2, bigEndian(base));
    this.#batch.attribute(3, bigEndian(offset));
    this.#batch.attribute(4, bigEndian(bytes));
  }

  #compare(register: number, value: Uint8Array): void {
    this.#expression("cmp", () => {
      this.#batch.attribute(1, bigEndian(register));
      this.#batch.attribute(2, bigEndian(0)); // equal
      this.#batch.nest(3, () => this.#batch.attribute(1, value));
    });
  }

  #immediate(register: number, value: Uint8Array): void {
    this.#expression("immediate", () => {
      this.#batch.attribute(1, bigEndian(register));
      this.#batch.nest(2, () => this.#batch.attribute(1, value));
    });
  }

  #verdict(code: number): void {
    this.#expression("immediate", () => {
      this.#batch.attribute(1, bigEndian(verdictRegister));
      this.#batch.nest(2, () => this.#batch.nest(2, () => this.#batch.attribute(1, bigEndian(code))));
    });
  }

  #map(name: string, number: number, valueBytes: number): void {
    const b = this.#batch;
    this.#add(Message.newSet, Request.create, () => {
      b.attribute(1, this.#table);
      b.attribute(2, zeroTerminated(name));
      b.attribute(3, bigEndian(mapOfValues));
      b.attribute(4, bigEndian(integerType)); // types are for those who print them
      b.attribute(5, bigEndian(16));
      b.attribute(6, bigEndian(integerType));
      b.attribute(7, bigEndian(valueBytes));
      b.nest(9, () => b.attribute(1, bigEndian(limits.connectionsMax)));
      b.attribute(10, bigEndian(number)); // within this message
    });
  }

  #chain(name: string, hook: number, priority: number): void {
    const b = this.#batch;
    this.#add(Message.newChain, Request.create, () => {
      b.attribute(1, this.#table);
      b.attribute(3, zeroTerminated(name));
      b.nest(4, () => {
        b.attribute(1, bigEndian(hook));
        b.attribute(2, bigEndian(priority));
      });
      b.attribute(5, bigEndian(Verdict.accept));
      b.attribute(7, zeroTerminated("filter"));
    });
  }

  #rule(chain: string, expressions: () => void): void {
    this.#add(Message.newRule, Request.create | append, () => {
      this.#batch.attribute(1, this.#table);
      this.#batch.attribute(2, zeroTerminated(chain));
      this.#batch.nest(4, expressions);
    });
  }

  #expression(name: string, data: () => void): void {
    this.#batch.nest(1, () => {
      this.#batch.attribute(1, zeroTerminated(name));
      this.#batch.nest(2, data);
    });
  }

  #begin(): NetlinkBatch {
    this.#batch.clear();
    this.#batch.message(batchBegin, 0, forSubsystem);
    return this.#batch;
  }

  #add(type: number, flags: number, attributes: () => void): void {
    const flagsAll = flags | Request.acknowledge;
    this.#batch.message((subsystemTables << 8) | type, flagsAll, forFamily, attributes);
  }

  #commit(what: string): void {
    this.#batch.message(batchEnd, 0, forSubsystem);
    this.#socket.commit(this.#batch, what);
  }
}

const append = 0x800;
/** struct nfgenmsg: family, version, resource id (big-endian). */
const forFamily = Uint8Array.of(inet, 0, 0, 0);
const forSubsystem = Uint8Array.of(0, 0, 0, subsystemTables);

/** Marks and numbers of routing tables of ours: 5h, then the process's number. */
export function markOf(number: number): number {
  return 0x5000_0000 + (number & 0x3f_ffff);
}

function tableName(mark: number): string {
  return `plimsoll_${mark.toString(16)}`;
}

function tableExists(socket: NetlinkSocket, batch: NetlinkBatch, mark: number): boolean {
  batch.clear();
  batch.message((subsystemTables << 8) | Message.getTable, Request.acknowledge, forFamily, () => {
    batch.attribute(1, zeroTerminated(tableName(mark)));
  });
  try {
    socket.commit(batch, "Cannot look for a table of the packet filter");
    return true;
  } catch (error) {
    if (error instanceof CallError && error.errno === Errno.ENOENT) return false;
    throw error;
  }
}

/** Whether the process that made routes with this mark is still there. */
export function markInUse(mark: number): boolean {
  const socket = new NetlinkSocket(netlinkNetfilter);
  try {
    return tableExists(socket, new NetlinkBatch(), mark);
  } finally {
    socket.close();
  }
}
