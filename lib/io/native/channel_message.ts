// Messages of a channel as bytes: JSON, and behind it the byte arrays that it names by {"$bytes": [start, length]}.

export const MessageKind = Object.freeze({ call: 1, answer: 2, failure: 3, tell: 4 });

export interface Message {
  readonly kind: number;
  /** Joins an answer or failure with its call; 0 for a tell. */
  readonly id: number;
  readonly value: unknown;
}

const headBytes = 12;
const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** The message in parts, to be sent one behind the other. Byte arrays are not copied. */
export function encodeMessage(kind: number, id: number, value: unknown): Uint8Array[] {
  const head = new Uint8Array(headBytes);
  const parts: Uint8Array[] = [head];
  let bytesAt = 0;
  const text = JSON.stringify(value ?? null, (_key, v: unknown) => {
    if (!(v instanceof Uint8Array)) return v;
    parts.push(v);
    bytesAt += v.length;
    return { $bytes: [bytesAt - v.length, v.length] };
  });
  const json = encoder.encode(text);
  parts.splice(1, 0, json);
  const view = new DataView(head.buffer);
  view.setUint32(0, kind);
  view.setUint32(4, id);
  view.setUint32(8, json.length);
  return parts;
}

/** Byte arrays in the value lie in `message`, which is theirs from now on. */
export function decodeMessage(message: Uint8Array<ArrayBuffer>): Message {
  const view = new DataView(message.buffer, message.byteOffset);
  const jsonBytes = view.getUint32(8);
  const bytesAt = headBytes + jsonBytes;
  const text = decoder.decode(message.subarray(headBytes, bytesAt));
  const value = !text.includes('"$bytes"') ? JSON.parse(text) : JSON.parse(text, (_key, v: unknown) => {
    const named = (v as { $bytes?: [number, number] } | null)?.$bytes;
    if (named === undefined) return v;
    return message.subarray(bytesAt + named[0], bytesAt + named[0] + named[1]);
  });
  return { kind: view.getUint32(0), id: view.getUint32(4), value };
}
