// The interfaces of this machine and their addresses, as the kernel's routing tables have them (rtnetlink(7)).

import { Errno } from "./errno.ts";
import { CallError } from "./flow_calls.ts";
import { attributesOf, nativeEndian, NetlinkBatch, NetlinkSocket, Request } from "./netlink.ts";
import { familyInet, familyInet6 } from "./socket_address.ts";

const netlinkRoute = 0;
const Message = { newLink: 16, getLink: 18, newAddress: 20, deleteAddress: 21, getAddress: 22 };
const AddressAttribute = { address: 1, local: 2, cacheInfo: 6, flags: 8 };
const LinkAttribute = { address: 1, name: 3 };
const LinkFlag = { loopback: 8, running: 0x40, noArp: 0x80 };
const ethernetType = 1; // ARPHRD_ETHER
const AddressFlag = { noDuplicateDetection: 2, permanent: 0x80 };
const replace = 0x100;

export interface InterfaceAddress {
  readonly interfaceIndex: number;
  /** 4 or 16 bytes. */
  readonly address: Uint8Array;
  readonly prefixBits: number;
  /** Stays until somebody takes it away. */
  readonly permanent: boolean;
}

export interface Interface {
  readonly index: number;
  readonly name: string;
  /** Hardware address, 6 bytes; null: it is no Ethernet, or has nobody to ask for addresses. */
  readonly link: Uint8Array | null;
  /** Switched on, and with a carrier. */
  readonly up: boolean;
}

/** Opened for each use: it is used seldom, and a descriptor less is held. Throws CallError. */
export class InterfaceAddresses implements Disposable {
  readonly #socket = new NetlinkSocket(netlinkRoute);
  readonly #batch = new NetlinkBatch();

  [Symbol.dispose](): void {
    this.#socket.close();
  }

  interfaces(): Interface[] {
    return this.#list(Message.getLink, Message.newLink, new Uint8Array(16)).map((body) => {
      const flags = body.getUint32(8, true);
      let name = "";
      let link: Uint8Array | null = null;
      for (const [attribute, value] of attributesOf(body, 16)) {
        if (attribute === LinkAttribute.name) {
          name = new TextDecoder().decode(bytesOf(value)).replace(/\0.*/s, "");
        }
        if (attribute === LinkAttribute.address) link = bytesOf(value);
      }
      const asked = body.getUint16(2, true) === ethernetType &&
        (flags & (LinkFlag.loopback | LinkFlag.noArp)) === 0 && link?.length === 6;
      const up = (flags & LinkFlag.running) !== 0;
      return { index: body.getInt32(4, true), name, link: asked ? link : null, up };
    });
  }

  addresses(): InterfaceAddress[] {
    return this.#list(Message.getAddress, Message.newAddress, new Uint8Array(8)).flatMap((body) => {
      let flags = body.getUint8(2);
      let address: Uint8Array | null = null;
      let local: Uint8Array | null = null;
      for (const [attribute, value] of attributesOf(body, 8)) {
        if (attribute === AddressAttribute.address) address = bytesOf(value);
        if (attribute === AddressAttribute.local) local = bytesOf(value);
        if (attribute === AddressAttribute.flags) flags = value.getUint32(0, true);
      }
      const own = local ?? address; // on a point-to-point link the other is the far end's
      if (own === null) return [];
      return [{
        interfaceIndex: body.getUint32(4, true),
        address: own,
        prefixBits: body.getUint8(1),
        permanent: (flags & AddressFlag.permanent) !== 0,
      }];
    });
  }

  /**
   * Sets an address of its own, for so many seconds. It is never taken for the sender's of what this machine sends by itself: the
   * network's route names another one (IPv4), and its time of preference is over (IPv6).
   */
  set(interfaceIndex: number, address: Uint8Array, forSeconds: number): void {
    const inet6 = address.length === 16;
    const flags = inet6 ? AddressFlag.noDuplicateDetection : 0; // has been looked for already
    this.#change(Message.newAddress, Request.create | replace, interfaceIndex, address, flags, (b) => {
      const preferred = inet6 ? 0 : forSeconds;
      b.attribute(
        AddressAttribute.cacheInfo,
        new Uint8Array(new Uint32Array([preferred, forSeconds, 0, 0]).buffer),
      );
    });
  }

  remove(interfaceIndex: number, address: Uint8Array): void {
    try {
      this.#change(Message.deleteAddress, 0, interfaceIndex, address, 0, () => {});
    } catch (error) {
      const gone = error instanceof CallError &&
        (error.errno === Errno.EADDRNOTAVAIL || error.errno === Errno.ENODEV);
      if (!gone) throw error;
    }
  }

  #change(
    type: number,
    flags: number,
    interfaceIndex: number,
    address: Uint8Array,
    addressFlags: number,
    more: (batch: NetlinkBatch) => void,
  ): void {
    const b = this.#batch;
    const header = new Uint8Array(8); // struct ifaddrmsg: family, prefix, flags, scope, interface
    header[0] = address.length === 16 ? familyInet6 : familyInet;
    header[1] = address.length * 8;
    header[2] = addressFlags;
    header.set(nativeEndian(interfaceIndex), 4);
    b.clear();
    b.message(type, flags | Request.acknowledge, header, () => {
      b.attribute(AddressAttribute.local, address);
      b.attribute(AddressAttribute.address, address);
      more(b);
    });
    this.#socket.commit(b, "Cannot change the addresses of an interface");
  }

  #list(question: number, answer: number, header: Uint8Array): DataView[] {
    this.#batch.clear();
    this.#batch.message(question, Request.dump, header);
    return this.#socket.list(this.#batch, "Cannot list interfaces", answer);
  }
}

function bytesOf(value: DataView): Uint8Array {
  return new Uint8Array(value.buffer, value.byteOffset, value.byteLength).slice();
}

/** Do the first `bits` bits agree? */
export function samePrefix(a: Uint8Array, b: Uint8Array, bits: number): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i * 8 < bits; i++) {
    const mask = 0xff << Math.max(0, 8 - (bits - i * 8)) & 0xff;
    if ((a[i]! & mask) !== (b[i]! & mask)) return false;
  }
  return true;
}
