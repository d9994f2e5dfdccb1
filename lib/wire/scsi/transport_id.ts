// TransportIDs of iSCSI initiator ports and devices (SPC-4 §7.6.4.6, tables 517 and 518).

/** An initiator port (name and ISID) or, with isid null, every port of an initiator device. */
export interface IscsiTransportId {
  /** iSCSI name, lower case. */
  readonly initiatorName: string;
  /** 48 bits. */
  readonly isid: number | null;
}

const protocolIscsi = 0x5;
const formatDeviceName = 0x00;
const formatPortName = 0x40;
const separator = ",i,0x";
const headerBytes = 4;
/** ADDITIONAL LENGTH is at least 20 and a multiple of four. */
const additionalBytesMin = 20;
/** RFC 7143 §4.2.7.1 */
const iscsiNameBytesMax = 223;

/** The longest TransportID: name, separator, 12 digits, NUL, rounded up. */
export const transportIdBytesMax = headerBytes + roundUp(iscsiNameBytesMax + separator.length + 12 + 1);

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: true });

export function encodeTransportId(id: IscsiTransportId): Uint8Array {
  const text = id.isid === null
    ? id.initiatorName
    : `${id.initiatorName}${separator}${id.isid.toString(16).padStart(12, "0")}`;
  const name = encoder.encode(text);
  const additional = Math.max(additionalBytesMin, roundUp(name.length + 1));
  const bytes = new Uint8Array(headerBytes + additional);
  bytes[0] = (id.isid === null ? formatDeviceName : formatPortName) | protocolIscsi;
  bytes[2] = additional >>> 8;
  bytes[3] = additional & 0xff;
  bytes.set(name, headerBytes);
  return bytes;
}

/** Reads one TransportID at `at`, not beyond `end`. Null: no valid iSCSI TransportID. */
export function parseTransportId(
  bytes: Uint8Array,
  at: number,
  end: number,
): { readonly id: IscsiTransportId; readonly end: number } | null {
  if (at + headerBytes > end) return null;
  const first = bytes[at]!;
  const format = first & 0xc0;
  if ((first & 0x0f) !== protocolIscsi || (format !== formatDeviceName && format !== formatPortName)) {
    return null;
  }
  const additional = bytes[at + 2]! * 256 + bytes[at + 3]!;
  const idEnd = at + headerBytes + additional;
  if (additional < additionalBytesMin || additional % 4 !== 0 || idEnd > end) return null;
  const field = bytes.subarray(at + headerBytes, idEnd);
  const nul = field.indexOf(0);
  if (nul <= 0) return null;
  let text: string;
  try {
    text = decoder.decode(field.subarray(0, nul));
  } catch {
    return null;
  }
  const id = format === formatDeviceName ? deviceName(text) : portName(text);
  return id === null ? null : { id, end: idEnd };
}

/** Reads TransportIDs that fill `at .. end` exactly. Null: something there is none. */
export function parseTransportIds(bytes: Uint8Array, at: number, end: number): IscsiTransportId[] | null {
  const ids: IscsiTransportId[] = [];
  while (at < end) {
    const parsed = parseTransportId(bytes, at, end);
    if (parsed === null) return null;
    ids.push(parsed.id);
    at = parsed.end;
  }
  return ids;
}

function deviceName(text: string): IscsiTransportId | null {
  return isName(text) ? { initiatorName: text.toLowerCase(), isid: null } : null;
}

function portName(text: string): IscsiTransportId | null {
  const match = /^(.+),i,0x([0-9a-f]{1,12})$/i.exec(text);
  if (match === null || !isName(match[1]!)) return null;
  return { initiatorName: match[1]!.toLowerCase(), isid: parseInt(match[2]!, 16) };
}

/** As lenient as a login: what matters is that the name can be compared. */
function isName(text: string): boolean {
  return encoder.encode(text).length <= iscsiNameBytesMax && /^[^\s,]+$/.test(text);
}

function roundUp(bytes: number): number {
  return Math.ceil(bytes / 4) * 4;
}
