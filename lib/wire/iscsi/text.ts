// Text of login and text PDUs: key=value pairs and the kinds of value (RFC 7143 §6.1). Malformed input is a verdict,
// never an exception. What a key means, and whether it may come twice, is for the negotiation to know.

/** Bounds of RFC 7143 §6.1; how many pairs a text may have is for the caller to say. */
export const textLimits = Object.freeze({
  keyBytesMax: 63,
  /** A simple value, unless its key says otherwise. */
  simpleValueBytesMax: 255,
  /** Any value as it is encoded: a binary value of 1024 bytes (CHAP, §12.1.3) needs 2050; certificates 8 KiB. */
  valueBytesMax: 8192,
});

export interface TextPair {
  readonly key: string;
  readonly value: string;
}

export type TextParse =
  | { readonly kind: "pairs"; readonly pairs: readonly TextPair[] }
  | { readonly kind: "malformed"; readonly reason: string };

/** Values that stand for an answer instead of a value (RFC 7143 §6.2). */
export const textAnswer = Object.freeze({
  reject: "Reject",
  irrelevant: "Irrelevant",
  notUnderstood: "NotUnderstood",
  none: "None",
});

/**
 * Parses `bytes[start .. end)`: the whole text, pieces of the C bit already joined. Empty strings between NULs (padding
 * that was counted) are skipped.
 */
export function parseText(bytes: Uint8Array, start: number, end: number, pairsMax = 256): TextParse {
  const pairs: TextPair[] = [];
  for (let at = start; at < end;) {
    const nul = bytes.indexOf(0, at);
    if (nul < 0 || nul >= end) return malformed(`the text ends without NUL after ${end - at} bytes`);
    if (nul > at) {
      if (pairs.length === pairsMax) return malformed(`more than ${pairsMax} pairs`);
      const pair = parsePair(bytes, at, nul);
      if (typeof pair === "string") return malformed(pair);
      pairs.push(pair);
    }
    at = nul + 1;
  }
  return { kind: "pairs", pairs };
}

/** The bytes of a text, a NUL after each pair. */
export function formatText(pairs: readonly TextPair[]): Uint8Array<ArrayBuffer> {
  let text = "";
  for (const { key, value } of pairs) text += `${key}=${value}\0`;
  return encoder.encode(text);
}

/**
 * A standard-label: capital letter first, then letters, digits and `.-+@_` (RFC 7143 §6.1). The standard's own
 * `iSCSIProtocolLevel` and `X#…` keys break that form and are taken too.
 */
export function isKeyName(text: string): boolean {
  return text.length <= textLimits.keyBytesMax && /^(?:iSCSI)?[A-Z][A-Za-z0-9.\-+@_#]*$/.test(text);
}

export function parseBoolean(value: string): boolean | null {
  return value === "Yes" ? true : value === "No" ? false : null;
}

export function formatBoolean(value: boolean): string {
  return value ? "Yes" : "No";
}

/**
 * A numerical value, decimal or hexadecimal, below 2^64; null when it is none. Values above 2^53 are rounded and stay
 * above it, so a range check still refuses them.
 */
export function parseNumber(value: string): number | null {
  if (/^(0|[1-9][0-9]{0,19})$/.test(value) || /^0[xX][0-9a-fA-F]{1,16}$/.test(value)) {
    const number = Number(value);
    return number < 2 ** 64 ? number : null;
  }
  return null;
}

/** "1~8": both ends, the first not above the second; null when it is none. */
export function parseRange(value: string): { readonly from: number; readonly to: number } | null {
  const tilde = value.indexOf("~");
  if (tilde < 0) return null;
  const from = parseNumber(value.slice(0, tilde));
  const to = parseNumber(value.slice(tilde + 1));
  return from === null || to === null || from > to ? null : { from, to };
}

/** A list of text values, in the order of preference; null when one of them is empty, too long or no text value. */
export function parseList(value: string): readonly string[] | null {
  const list = value.split(",");
  return list.every((v) => v !== "" && isTextValue(v)) ? list : null;
}

/** Letters, digits and `.-+@_/[]:` (RFC 7143 §6.1), at most 255. */
export function isTextValue(value: string): boolean {
  return value.length <= textLimits.simpleValueBytesMax && /^[A-Za-z0-9.\-+@_/[\]:]*$/.test(value);
}

/**
 * A binary value, 0x… (two digits a byte) or 0b… (base64, padded); null when it is none or longer than `bytesMax`.
 * A decimal constant has no length of its own and is therefore refused.
 */
export function parseBinary(value: string, bytesMax: number): Uint8Array<ArrayBuffer> | null {
  const body = value.slice(2);
  if (value.startsWith("0x") || value.startsWith("0X")) return parseHex(body, bytesMax);
  if (value.startsWith("0b") || value.startsWith("0B")) return parseBase64(body, bytesMax);
  return null;
}

/** A binary value as 0x… */
export function formatHex(bytes: Uint8Array): string {
  let text = "0x";
  for (const byte of bytes) text += byte.toString(16).padStart(2, "0");
  return text;
}

/** A binary value as 0b… */
export function formatBase64(bytes: Uint8Array): string {
  let text = "0b";
  for (let i = 0; i < bytes.length; i += 3) {
    const left = bytes.length - i;
    const word = (bytes[i]! << 16) | ((bytes[i + 1] ?? 0) << 8) | (bytes[i + 2] ?? 0);
    text += base64Digits[word >>> 18]! + base64Digits[(word >>> 12) & 63]!;
    text += left > 1 ? base64Digits[(word >>> 6) & 63]! : "=";
    text += left > 2 ? base64Digits[word & 63]! : "=";
  }
  return text;
}

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const base64Digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

function malformed(reason: string): TextParse {
  return { kind: "malformed", reason };
}

/** One pair, or what is wrong with it. */
function parsePair(bytes: Uint8Array, start: number, end: number): TextPair | string {
  const equals = bytes.indexOf(0x3d, start);
  if (equals < 0 || equals >= end) return `a pair of ${end - start} bytes has no "="`;
  if (equals - start > textLimits.keyBytesMax) {
    return `a key of ${equals - start} bytes; ${textLimits.keyBytesMax} are allowed`;
  }
  const key = decode(bytes, start, equals);
  if (key === null || !isKeyName(key)) return "a key is not a standard label";
  if (end - equals - 1 > textLimits.valueBytesMax) {
    return `the value of ${key} has ${end - equals - 1} bytes; ${textLimits.valueBytesMax} are allowed`;
  }
  const value = decode(bytes, equals + 1, end);
  return value === null ? `the value of ${key} is not UTF-8` : { key, value };
}

function decode(bytes: Uint8Array, start: number, end: number): string | null {
  try {
    return decoder.decode(bytes.subarray(start, end));
  } catch {
    return null;
  }
}

function parseHex(digits: string, bytesMax: number): Uint8Array<ArrayBuffer> | null {
  if (digits.length === 0 || digits.length % 2 !== 0 || digits.length > bytesMax * 2) return null;
  if (!/^[0-9a-fA-F]*$/.test(digits)) return null;
  const bytes = new Uint8Array(digits.length / 2);
  for (let i = 0; i < bytes.length; i++) bytes[i] = Number.parseInt(digits.slice(2 * i, 2 * i + 2), 16);
  return bytes;
}

function parseBase64(digits: string, bytesMax: number): Uint8Array<ArrayBuffer> | null {
  if (digits.length === 0 || digits.length % 4 !== 0 || !/^[A-Za-z0-9+/]*={0,2}$/.test(digits)) return null;
  const padding = digits.endsWith("==") ? 2 : digits.endsWith("=") ? 1 : 0;
  const length = (digits.length / 4) * 3 - padding;
  if (length > bytesMax) return null;
  const bytes = new Uint8Array(length);
  for (let i = 0, at = 0; i < digits.length; i += 4) {
    let word = 0;
    for (let k = 0; k < 4; k++) word = (word << 6) | Math.max(0, base64Digits.indexOf(digits[i + k]!));
    for (let shift = 16; shift >= 0 && at < length; shift -= 8) bytes[at++] = (word >>> shift) & 0xff;
  }
  return bytes;
}
