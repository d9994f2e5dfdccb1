// Ethernet frames by which machines of one network find out who has an IP address: ARP (RFC 826, RFC 5227) for IPv4, and
// neighbour discovery (RFC 4861, RFC 4862 §5.4) for IPv6. Addresses are bytes in network order: 4 or 16, and 6 for hardware.

export const EtherType = Object.freeze({ arp: 0x0806, ipv6: 0x86dd });

const etherBytes = 14;
const broadcast = Uint8Array.of(255, 255, 255, 255, 255, 255);
const Arp = { request: 1, reply: 2 };
const icmpv6 = 58;
const Neighbour = { solicitation: 135, advertisement: 136 };
/** Only packets of this network still have it (RFC 4861 §7.1). */
const hopLimit = 255;
const overrideFlag = 0x2000_0000;
const targetLinkOption = 2;

export function etherTypeOf(address: Uint8Array): number {
  return address.length === 4 ? EtherType.arp : EtherType.ipv6;
}

/** "Who has this address?", of somebody who does not have it yet. */
export function questionFrame(own: Uint8Array, address: Uint8Array): Uint8Array<ArrayBuffer> {
  if (address.length === 4) return arp(Arp.request, own, new Uint8Array(4), address);
  // To the address's solicited-node group (RFC 4291 §2.7.1), from nobody.
  const group = Uint8Array.of(0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, ...address.subarray(13));
  return discovery(own, new Uint8Array(16), group, Neighbour.solicitation, 0, address, null);
}

/** "I have this address", unasked, in each of the forms that some neighbour listens to. */
export function announcementFrames(own: Uint8Array, address: Uint8Array): Uint8Array<ArrayBuffer>[] {
  if (address.length === 4) {
    return [arp(Arp.request, own, address, address), arp(Arp.reply, own, address, address)];
  }
  const allNodes = Uint8Array.of(0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1);
  return [discovery(own, address, allNodes, Neighbour.advertisement, overrideFlag, address, own)];
}

/** Who says in this frame that the address is his: his hardware address; null: nobody but `own`. */
export function claimant(frame: Uint8Array, own: Uint8Array, address: Uint8Array): Uint8Array | null {
  if (frame.length < etherBytes) return null;
  const view = new DataView(frame.buffer, frame.byteOffset, frame.length);
  if (view.getUint16(12) !== etherTypeOf(address)) return null;
  const found = address.length === 4 ? arpSender(frame, view, address) : advertiser(frame, view, address);
  return found === null || same(found, own) ? null : found;
}

function arpSender(frame: Uint8Array, view: DataView, address: Uint8Array): Uint8Array | null {
  const at = etherBytes;
  const ours = frame.length >= at + 28 && view.getUint16(at) === 1 && view.getUint16(at + 2) === 0x0800 &&
    view.getUint16(at + 4) === 0x0604 && same(frame.subarray(at + 14, at + 18), address);
  return ours ? frame.slice(at + 8, at + 14) : null;
}

/** Of the frame, not of its option, which may be missing. */
function advertiser(frame: Uint8Array, view: DataView, address: Uint8Array): Uint8Array | null {
  const at = etherBytes;
  const ours = frame.length >= at + 64 && frame[at]! >>> 4 === 6 && frame[at + 6] === icmpv6 &&
    frame[at + 7] === hopLimit && view.getUint8(at + 40) === Neighbour.advertisement &&
    same(frame.subarray(at + 48, at + 64), address);
  return ours ? frame.slice(6, 12) : null;
}

function arp(
  operation: number,
  own: Uint8Array,
  sender: Uint8Array,
  target: Uint8Array,
): Uint8Array<ArrayBuffer> {
  const frame = new Uint8Array(etherBytes + 28);
  const view = new DataView(frame.buffer);
  ethernet(frame, view, broadcast, own, EtherType.arp);
  view.setUint16(etherBytes, 1); // Ethernet
  view.setUint16(etherBytes + 2, 0x0800); // IPv4
  view.setUint16(etherBytes + 4, 0x0604); // their lengths
  view.setUint16(etherBytes + 6, operation);
  frame.set(own, etherBytes + 8);
  frame.set(sender, etherBytes + 14);
  if (operation === Arp.reply) frame.set(broadcast, etherBytes + 18);
  frame.set(target, etherBytes + 24);
  return frame;
}

function discovery(
  own: Uint8Array,
  from: Uint8Array,
  group: Uint8Array,
  type: number,
  flags: number,
  target: Uint8Array,
  link: Uint8Array | null,
): Uint8Array<ArrayBuffer> {
  const messageBytes = link === null ? 24 : 32;
  const frame = new Uint8Array(etherBytes + 40 + messageBytes);
  const view = new DataView(frame.buffer);
  // RFC 2464 §7
  ethernet(frame, view, Uint8Array.of(0x33, 0x33, ...group.subarray(12)), own, EtherType.ipv6);
  let at = etherBytes;
  view.setUint32(at, 0x6000_0000);
  view.setUint16(at + 4, messageBytes);
  view.setUint8(at + 6, icmpv6);
  view.setUint8(at + 7, hopLimit);
  frame.set(from, at + 8);
  frame.set(group, at + 24);
  at += 40;
  view.setUint8(at, type);
  view.setUint32(at + 4, flags);
  frame.set(target, at + 8);
  if (link !== null) {
    view.setUint16(at + 24, targetLinkOption << 8 | 1); // 8 bytes
    frame.set(link, at + 26);
  }
  view.setUint16(at + 2, checksum(view, messageBytes));
  return frame;
}

function ethernet(
  frame: Uint8Array,
  view: DataView,
  to: Uint8Array,
  from: Uint8Array,
  etherType: number,
): void {
  frame.set(to, 0);
  frame.set(from, 6);
  view.setUint16(12, etherType);
}

/** RFC 8200 §8.1: of both addresses, length, next header, and the message. */
function checksum(view: DataView, messageBytes: number): number {
  let sum = messageBytes + icmpv6;
  for (let at = etherBytes + 8; at < view.byteLength; at += 2) sum += view.getUint16(at);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}

function same(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}
