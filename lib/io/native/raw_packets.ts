// Packets made by hand. To a socket of this machine, as if its client had sent it: the acknowledgement of what a borrower has
// sent for it, which came while the socket did not know yet what it was about. To a client: what its socket could not say.

import type { FlowPoint, TcpState } from "../../base/flow.ts";
import type { SocketAddress } from "../../base/network.ts";
import { checked, flowCalls } from "./flow_calls.ts";
import { ipv4Bytes } from "./filter_table.ts";
import { libc } from "./libc.ts";
import type { Reception } from "./tcp_repair.ts";

const familyInet = 2;
const socketRaw = 3 | 0x80000; // SOCK_CLOEXEC
const ipprotoRaw = 255;
const headerBytes = 40;
/** With room for one byte of data, and zeroes to make whole words. */
const packetBytes = 44;
const acknowledgeFlag = 0x10;
const tcp = 6;

export class RawPackets {
  readonly #fd: number;
  readonly #packet = new Uint8Array(packetBytes);
  readonly #view = new DataView(this.#packet.buffer);
  readonly #to = new Uint8Array(16);

  /** Throws CallError where CAP_NET_RAW is missing. */
  constructor() {
    this.#fd = checked(libc()!.socket(familyInet, socketRaw, ipprotoRaw), "Cannot open a raw socket");
  }

  close(): void {
    libc()!.close(this.#fd);
  }

  /** The acknowledgement of everything below `state.sendUnacknowledged`, with the window that the client has told. */
  acknowledgeToUs(state: TcpState, receiveNext: number): void {
    const window = scaled(state.sendWindow, state.sendWindowShift);
    this.#send(state.client, state.portal, receiveNext, state.sendUnacknowledged, window, 0);
  }

  /** The acknowledgement of all that the client has sent. */
  acknowledgeToClient(state: TcpState, { receiveNext, windowBytes }: Reception): void {
    const window = scaled(windowBytes, state.receiveWindowShift);
    this.#send(state.portal, state.client, state.sendNext, receiveNext, window, 0);
  }

  /** A byte that the client has had long ago: it says at once what it has (RFC 9293 §3.10.7.4), and never takes it. */
  provoke(state: FlowPoint): void {
    this.#send(
      state.portal,
      state.client,
      (state.sendUnacknowledged - 1) >>> 0,
      state.receiveNext,
      0xffff,
      1,
    );
  }

  #send(
    from: SocketAddress,
    to: SocketAddress,
    sequence: number,
    acknowledgement: number,
    window: number,
    dataBytes: number,
  ): void {
    const view = this.#view;
    const packet = this.#packet;
    const length = headerBytes + dataBytes;
    packet.fill(0);
    packet[0] = 0x45;
    view.setUint16(2, length);
    packet[6] = 0x40; // don't fragment
    packet[8] = 64;
    packet[9] = tcp;
    packet.set(ipv4Bytes(from.hostname), 12);
    packet.set(ipv4Bytes(to.hostname), 16);
    view.setUint16(20, from.port);
    view.setUint16(22, to.port);
    view.setUint32(24, sequence);
    view.setUint32(28, acknowledgement);
    packet[32] = 0x50;
    packet[33] = acknowledgeFlag;
    view.setUint16(34, window);
    view.setUint16(36, checksum(view, length));
    this.#to[0] = familyInet;
    this.#to.set(packet.subarray(16, 20), 4);
    checked(
      flowCalls().sendto(this.#fd, packet, BigInt(length), 0, this.#to, 16),
      "Cannot send a packet made by hand",
    );
  }
}

function scaled(windowBytes: number, shift: number): number {
  return Math.min(0xffff, windowBytes >>> Math.max(0, shift));
}

/** RFC 9293 §3.1: of pseudo header, header and data, which is zero. */
function checksum(view: DataView, length: number): number {
  let sum = tcp + length - 20;
  for (let at = 12; at < packetBytes; at += 2) sum += view.getUint16(at);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}
