// Whole frames of one interface (packet(7)): those by which machines find out who has an address, and no others.

import { checked, flowCalls } from "./flow_calls.ts";
import { libc } from "./libc.ts";
import { EtherType } from "./neighbour_frames.ts";
import { SocketFilter } from "./socket_filter.ts";

const afPacket = 17;
const socketRaw = 3 | 0x80000; // SOCK_CLOEXEC
const dontWait = 0x40;
const frameBytesMax = 2048;

/** Of IPv6, everything comes that the machine gets: without a filter, traffic would push the answers out of the buffer. */
const advertisements = new SocketFilter([
  [0x30, 0, 0, 20], // ldb [20]: next header
  [0x15, 0, 3, 58], // jeq ICMPv6
  [0x30, 0, 0, 54], // ldb [54]: type
  [0x15, 0, 1, 136], // jeq neighbour advertisement
  [0x06, 0, 0, frameBytesMax], // ret: so many bytes of it
  [0x06, 0, 0, 0], // ret 0: drop
]);

export class PacketSocket {
  readonly #fd: number;
  readonly #frame = new Uint8Array(frameBytesMax);

  /** `etherType`: one of EtherType. Throws CallError. */
  constructor(interfaceIndex: number, etherType: number) {
    const c = libc()!;
    this.#fd = checked(c.socket(afPacket, socketRaw, 0), "Cannot open a packet socket"); // hears nothing until it is bound
    const address = new Uint8Array(20); // struct sockaddr_ll
    const view = new DataView(address.buffer);
    view.setUint16(0, afPacket, true);
    view.setUint16(2, etherType);
    view.setInt32(4, interfaceIndex, true);
    try {
      if (etherType === EtherType.ipv6) advertisements.attach(this.#fd);
      checked(c.bind(this.#fd, address, address.length), "Cannot bind a packet socket");
    } catch (error) {
      this.close();
      throw error;
    }
  }

  send(frame: Uint8Array): void {
    checked(flowCalls().send(this.#fd, frame, BigInt(frame.length), 0), "Cannot ask or tell the neighbours");
  }

  /** The first answer that is not null, among the frames that have come. */
  find<T>(look: (frame: Uint8Array) => T | null): T | null {
    for (;;) {
      const bytes = flowCalls().recv(this.#fd, this.#frame, BigInt(this.#frame.length), dontWait);
      if (bytes < 0) return null;
      const found = look(this.#frame.subarray(0, bytes));
      if (found !== null) return found;
    }
  }

  close(): void {
    libc()!.close(this.#fd);
  }
}
