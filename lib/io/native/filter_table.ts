// A table of the packet filter (nf_tables), built message by message in the kernel's own terms, and the rules of ours that more
// than one table has. docs/short-cut.md.

import type { SocketAddress } from "../../base/network.ts";
import { limits } from "../../base/limits.ts";
import { CallError } from "./flow_calls.ts";
import { Errno } from "./errno.ts";
import type { ThreadLock } from "./thread_lock.ts";
import { bigEndian, NetlinkBatch, NetlinkSocket, Request, zeroTerminated } from "./netlink.ts";

const netlinkNetfilter = 12;
const subsystemTables = 10;
const batchBegin = 0x10;
const batchEnd = 0x11;
const inet = 2;

const Message = {
  newTable: 0,
  getTable: 1,
  deleteTable: 2,
  newChain: 3,
  newRule: 6,
  newSet: 9,
  newSetElement: 12,
  deleteSetElement: 14,
};
const append = 0x800;
/** NFT_SET_MAP, NFT_SET_TIMEOUT. */
const mapOfValues = 0x8;
const elementsEnd = 0x10;
const integerType = 4;
const inetChecksum = 1;
const tcp = 6;
const Base = { network: 1, transport: 2 };

/** NFT_TABLE_F_OWNER: the table goes with the socket that has made it. */
export const ownedTable = 2;
export const Hook = { prerouting: 0, localOut: 3 };
/** Before connection tracking, which so sees what the socket sees. */
export const beforeTracking = -301;
export const Verdict = { drop: 0, accept: 1 };
export const Meta = { mark: 3, layer4Protocol: 16 };
/** Connections that are another machine's now: its address. */
export const movedSet = "moved";

/** Sequence numbers of threads that share a socket are so far apart. */
const threadSequences = 2 ** 27;

// Registers: four of 16 bytes, the same memory as 16 of four bytes from 8 on.
const verdictRegister = 0;
const keyRegister = 1;
const valueRegister = 2;
export const word = (n: number): number => 8 + n;

/** Time to live of a packet that was passed on: it has come from the neighbour, and goes nowhere from there. */
const passedTimeToLive = 0;

/** struct nfgenmsg: family, version, resource id (big-endian). */
const forFamily = Uint8Array.of(inet, 0, 0, 0);
const forSubsystem = Uint8Array.of(0, 0, 0, subsystemTables);

/** An address for the four-byte registers. */
export function ipv4Bytes(hostname: string): Uint8Array {
  return Uint8Array.from(hostname.split("."), Number);
}

/** Client and portal, padded as registers are. */
export function keyOf(client: SocketAddress, portal: SocketAddress): Uint8Array {
  const key = new Uint8Array(16);
  const view = new DataView(key.buffer);
  key.set(ipv4Bytes(client.hostname), 0);
  view.setUint16(4, client.port);
  key.set(ipv4Bytes(portal.hostname), 8);
  view.setUint16(12, portal.port);
  return key;
}

/** One element of a map; `value` null: to be taken away. */
export interface MapElement {
  readonly key: Uint8Array;
  readonly value: Uint8Array | null;
}

/** A table that another thread has made: only its socket can change it (`ownedTable`). */
export interface SharedTable {
  /** Of that socket; whose it is given to closes it. */
  readonly descriptor: number;
  readonly lock: ThreadLock;
  /** A number of the thread's own, from 1 on. */
  readonly thread: number;
}

export class FilterTable {
  readonly #socket: NetlinkSocket;
  readonly #batch: NetlinkBatch;
  readonly #name: Uint8Array;
  #lock: ThreadLock | null;

  /** Without `shared` nothing is made yet; throws CallError where the kernel has no packet filter. */
  constructor(name: string, shared: SharedTable | null = null) {
    this.#socket = new NetlinkSocket(netlinkNetfilter, shared?.descriptor);
    this.#batch = new NetlinkBatch((shared?.thread ?? 0) * threadSequences);
    this.#name = zeroTerminated(name);
    this.#lock = shared?.lock ?? null;
  }

  /** A descriptor by which another thread changes the table; each takes the lock for every change from now on. */
  share(lock: ThreadLock): number {
    this.#lock = lock;
    return this.#socket.duplicate();
  }

  close(): void {
    this.#socket.close();
  }

  exists(): boolean {
    this.#batch.clear();
    this.#add(Message.getTable, 0, () => this.#batch.attribute(1, this.#name));
    return this.#isThere(() => this.#commit("Cannot look for a table of the packet filter"));
  }

  /** False: it was not there. */
  remove(): boolean {
    return this.#isThere(() =>
      this.change(
        "Cannot take a table of the packet filter away",
        () => this.#add(Message.deleteTable, 0, () => this.#batch.attribute(1, this.#name)),
      )
    );
  }

  /** One transaction of what `changes` calls. Throws CallError, and nothing has changed. */
  change(what: string, changes: () => void): void {
    this.#batch.clear();
    this.#batch.message(batchBegin, 0, forSubsystem);
    changes();
    this.#batch.message(batchEnd, 0, forSubsystem);
    this.#commit(what);
  }

  #commit(what: string): void {
    const commit = () => this.#socket.commit(this.#batch, what);
    if (this.#lock === null) commit();
    else this.#lock.during(commit);
  }

  #isThere(work: () => void): boolean {
    try {
      work();
      return true;
    } catch (error) {
      if (error instanceof CallError && error.errno === Errno.ENOENT) return false;
      throw error;
    }
  }

  // Within change().

  table(flags: number): void {
    this.#add(Message.newTable, Request.create | Request.exclusive, () => {
      this.#batch.attribute(1, this.#name);
      this.#batch.attribute(2, bigEndian(flags));
    });
  }

  /** Of connections. `number`: within this transaction; `timeMs`: for so long an element stays, 0: until it is taken away. */
  map(name: string, number: number, valueBytes: number, timeMs = 0): void {
    const b = this.#batch;
    this.#add(Message.newSet, Request.create, () => {
      b.attribute(1, this.#name);
      b.attribute(2, zeroTerminated(name));
      b.attribute(3, bigEndian(mapOfValues | (timeMs > 0 ? elementsEnd : 0)));
      b.attribute(4, bigEndian(integerType)); // types are for those who print them
      b.attribute(5, bigEndian(16));
      b.attribute(6, bigEndian(integerType));
      b.attribute(7, bigEndian(valueBytes));
      b.nest(9, () => b.attribute(1, bigEndian(limits.connectionsMax)));
      b.attribute(10, bigEndian(number));
      if (timeMs > 0) b.attribute(11, Uint8Array.of(0, 0, 0, 0, ...bigEndian(timeMs)));
    });
  }

  chain(name: string, hook: number, priority: number): void {
    const b = this.#batch;
    this.#add(Message.newChain, Request.create, () => {
      b.attribute(1, this.#name);
      b.attribute(3, zeroTerminated(name));
      b.nest(4, () => {
        b.attribute(1, bigEndian(hook));
        b.attribute(2, bigEndian(priority));
      });
      b.attribute(5, bigEndian(Verdict.accept));
      b.attribute(7, zeroTerminated("filter"));
    });
  }

  rule(chain: string, expressions: () => void): void {
    this.#add(Message.newRule, Request.create | append, () => {
      this.#batch.attribute(1, this.#name);
      this.#batch.attribute(2, zeroTerminated(chain));
      this.#batch.nest(4, expressions);
    });
  }

  /** All of the same kind: to be put, or to be taken away. At least one. */
  elements(map: string, elements: readonly MapElement[]): void {
    const b = this.#batch;
    const put = elements[0]!.value !== null;
    const type = put ? Message.newSetElement : Message.deleteSetElement;
    this.#add(type, put ? Request.create : 0, () => {
      b.attribute(1, this.#name);
      b.attribute(2, zeroTerminated(map));
      b.nest(3, () => {
        for (const { key, value } of elements) {
          b.nest(1, () => {
            b.nest(1, () => b.attribute(1, key));
            if (value !== null) b.nest(2, () => b.attribute(1, value));
          });
        }
      });
    });
  }

  /** The rules that pass what the clients of moved connections send on to their owners. */
  movedRules(chain: string): void {
    // What others have passed on to us is not passed on further: it would go round in circles. It is sent again.
    this.rule(chain, () => {
      this.isPassedOn();
      this.lookFromClient(movedSet);
      this.verdict(Verdict.drop);
    });
    this.rule(chain, () => {
      this.isTcp();
      this.lookFromClient(movedSet);
      this.passOn(word(4));
      this.verdict(Verdict.drop);
    });
  }

  // Within rule().

  isTcp(): void {
    this.numbers("meta", [[1, word(0)], [2, Meta.layer4Protocol]]);
    this.compare(word(0), Uint8Array.of(tcp));
  }

  /** By another member, to this machine. */
  isPassedOn(): void {
    this.isTcp();
    this.#load(Base.network, 8, 1, word(0));
    this.compare(word(0), Uint8Array.of(passedTimeToLive));
  }

  /** Looks for the connection of a packet of the client's; its value is in the registers from word(4) on then. */
  lookFromClient(map: string): void {
    this.#look(map, 12, 0, 16, 2, true);
  }

  /** The same for a packet of the portal's, without the value. */
  lookFromPortal(map: string): void {
    this.#look(map, 16, 2, 12, 0, false);
  }

  /** A copy goes to the neighbour whose address is in the register, and no further. */
  passOn(register: number): void {
    this.immediate(word(8), Uint8Array.of(passedTimeToLive + 1)); // doubling counts one down
    this.#store(word(8), Base.network, 8, 1, 10);
    this.numbers("dup", [[1, register]]);
  }

  /** A field of four bytes of the TCP header. */
  loadTcp(offset: number, register: number): void {
    this.#load(Base.transport, offset, 4, register);
  }

  storeTcp(offset: number, register: number): void {
    this.#store(register, Base.transport, offset, 4, 16);
  }

  compare(register: number, value: Uint8Array): void {
    this.#expression("cmp", () => {
      this.#batch.attribute(1, bigEndian(register));
      this.#batch.attribute(2, bigEndian(0)); // equal
      this.#batch.nest(3, () => this.#batch.attribute(1, value));
    });
  }

  immediate(register: number, value: Uint8Array): void {
    this.#expression("immediate", () => {
      this.#batch.attribute(1, bigEndian(register));
      this.#batch.nest(2, () => this.#batch.attribute(1, value));
    });
  }

  verdict(code: number): void {
    this.#expression("immediate", () => {
      this.#batch.attribute(1, bigEndian(verdictRegister));
      this.#batch.nest(2, () => this.#batch.nest(2, () => this.#batch.attribute(1, bigEndian(code))));
    });
  }

  /** Attributes: numbers and values, 32 bits each. */
  numbers(name: string, attributes: readonly (readonly [type: number, value: number])[]): void {
    this.#expression(name, () => {
      for (const [type, value] of attributes) this.#batch.attribute(type, bigEndian(value));
    });
  }

  #expression(name: string, data: () => void): void {
    this.#batch.nest(1, () => {
      this.#batch.attribute(1, zeroTerminated(name));
      this.#batch.nest(2, data);
    });
  }

  /** By where the addresses and ports of client and portal are in the packet. */
  #look(
    map: string,
    clientAt: number,
    clientPortAt: number,
    portalAt: number,
    portalPortAt: number,
    value: boolean,
  ): void {
    this.#load(Base.network, clientAt, 4, word(0));
    this.#load(Base.transport, clientPortAt, 2, word(1));
    this.#load(Base.network, portalAt, 4, word(2));
    this.#load(Base.transport, portalPortAt, 2, word(3));
    this.#expression("lookup", () => {
      this.#batch.attribute(1, zeroTerminated(map));
      this.#batch.attribute(2, bigEndian(keyRegister));
      if (value) this.#batch.attribute(3, bigEndian(valueRegister));
    });
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

  #add(type: number, flags: number, attributes: () => void): void {
    const flagsAll = flags | Request.acknowledge;
    this.#batch.message((subsystemTables << 8) | type, flagsAll, forFamily, attributes);
  }
}
