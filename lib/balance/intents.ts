// Which initiator is expected where. A member that sends a login elsewhere, or asks a client to leave, tells this first:
// the destination, which then keeps it whatever its policy says, and everybody else, since initiators come back to the
// portal that they knew first.

import { limits } from "../base/limits.ts";
import { IntentHeader, intentHeaderBytes, intentVersion } from "../wire/scsi/load_report.ts";
import type { MemberTag } from "./view.ts";

export const intentPurposes = ["login", "balance", "operator", "drain"] as const;
export type IntentPurpose = (typeof intentPurposes)[number];

/** Why a member does not take a client. */
export const IntentRefusal = Object.freeze({ draining: 1, full: 2, known: 3, loaded: 4, noVolume: 5 });

export const refusalWords: Readonly<Record<number, string>> = Object.freeze({
  1: "it is being drained",
  2: "it has all the sessions it may have",
  3: "the same initiator port is logged in there",
  4: "it would be above the average itself",
  5: "it does not serve the volume",
});

/** An initiator port (name and ISID) and the image it uses. */
export interface Port {
  readonly initiator: string;
  readonly isid: number;
  readonly image: number;
}

export interface Intent extends Port {
  readonly purpose: IntentPurpose;
  readonly to: MemberTag;
  /** How long it counts from now on, milliseconds. */
  readonly timeMs: number;
  /** Work a second that goes along. */
  readonly work: number;
  /** What the sender has left then; a member that is asked compares itself with it. */
  readonly senderWorkAfter: number;
  /** How often the connection has been moved lately, this time included. */
  readonly moves: number;
}

export function encodeIntent(intent: Intent): Uint8Array<ArrayBuffer> {
  const name = new TextEncoder().encode(intent.initiator);
  const bytes = new Uint8Array(intentHeaderBytes + name.length);
  const view = new DataView(bytes.buffer);
  const h = IntentHeader;
  h.version.set(view, 0, intentVersion);
  h.purpose.set(view, 0, intentPurposes.indexOf(intent.purpose));
  h.to.set(view, 0, intent.to);
  h.isid.set(view, 0, intent.isid);
  h.image.set(view, 0, intent.image);
  h.timeMs.set(view, 0, intent.timeMs);
  h.work.set(view, 0, Math.round(Math.min(intent.work, 0xffff_ffff)));
  h.senderWorkAfter.set(view, 0, Math.round(Math.min(intent.senderWorkAfter, 0xffff_ffff)));
  h.moves.set(view, 0, Math.min(intent.moves, 255));
  h.nameBytes.set(view, 0, name.length);
  bytes.set(name, intentHeaderBytes);
  return bytes;
}

/** Null: the bytes are no intent of this version. */
export function decodeIntent(bytes: Uint8Array): Intent | null {
  if (bytes.length < intentHeaderBytes) return null;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const h = IntentHeader;
  const purpose = intentPurposes[h.purpose.get(view, 0)];
  const nameBytes = h.nameBytes.get(view, 0);
  const right = h.version.get(view, 0) === intentVersion && purpose !== undefined && nameBytes > 0 &&
    bytes.length === intentHeaderBytes + nameBytes;
  if (!right) return null;
  return {
    initiator: new TextDecoder().decode(bytes.subarray(intentHeaderBytes)),
    isid: h.isid.get(view, 0),
    image: h.image.get(view, 0),
    purpose,
    to: h.to.get(view, 0),
    timeMs: Math.min(h.timeMs.get(view, 0), limits.intentTimeMsMax),
    work: h.work.get(view, 0),
    senderWorkAfter: h.senderWorkAfter.get(view, 0),
    moves: h.moves.get(view, 0),
  };
}

interface Kept {
  readonly intent: Intent;
  readonly untilMs: number;
  /** This member has sent the initiator there once; when it comes here again, it could not get there. */
  sent: boolean;
  /** When it logged in at its destination, if that is here; -1: it has not. */
  arrivedMs: number;
}

/** Intents that count, of this member and of the others; the newest for an initiator port is the one. */
export class Intents {
  readonly #kept = new Map<string, Kept>();

  note(intent: Intent, nowMs: number): void {
    this.#expire(nowMs);
    const key = keyOf(intent);
    this.#kept.delete(key);
    if (this.#kept.size >= limits.intentsMax) this.#kept.delete(this.#kept.keys().next().value!);
    this.#kept.set(key, { intent, untilMs: nowMs + intent.timeMs, sent: false, arrivedMs: -1 });
  }

  find(port: Port, nowMs: number): Intent | null {
    this.#expire(nowMs);
    return this.#kept.get(keyOf(port))?.intent ?? null;
  }

  /**
   * What to do with a login: null, nobody has said anything of it; "here", it is expected here, or has been sent where it
   * was to go and has come back; else where it is to go.
   */
  atLogin(port: Port, own: MemberTag, nowMs: number): Intent | "here" | null {
    this.#expire(nowMs);
    const kept = this.#kept.get(keyOf(port)) ?? this.#otherIsid(port, own);
    if (kept === undefined) return null;
    if (kept.intent.to === own) {
      if (kept.arrivedMs < 0) kept.arrivedMs = nowMs;
      return "here";
    }
    if (kept.sent) return "here";
    kept.sent = true;
    return kept.intent;
  }

  /** Some initiators make up an ISID for every try: whoever is awaited here may have another one now. */
  #otherIsid({ initiator, image }: Port, own: MemberTag): Kept | undefined {
    return [...this.#kept.values()].find(({ intent, arrivedMs }) =>
      intent.to === own && arrivedMs < 0 && intent.initiator === initiator && intent.image === image
    );
  }

  /** Those that this member waits for: promised to it, and not logged in yet. */
  expected(own: MemberTag, nowMs: number): { readonly count: number; readonly work: number } {
    this.#expire(nowMs);
    let count = 0;
    let work = 0;
    for (const { intent, arrivedMs } of this.#kept.values()) {
      if (intent.to !== own || arrivedMs >= 0) continue;
      count++;
      work += intent.work;
    }
    return { count, work };
  }

  #expire(nowMs: number): void {
    for (const [key, { untilMs }] of this.#kept) if (untilMs <= nowMs) this.#kept.delete(key);
  }
}

function keyOf({ initiator, isid, image }: Port): string {
  return `${isid} ${image} ${initiator}`;
}
