// An initiator session on a bench: a stream that records, a clock that is set by hand, and a target that is the test.

import { strict as assert } from "node:assert";
import type { Clock, Timer } from "../../lib/base/clock.ts";
import type { SendRelease, Stream } from "../../lib/base/network.ts";
import type { RandomSource } from "../../lib/base/random.ts";
import {
  InitiatorCommand,
  InitiatorSession,
  type InitiatorSessionOptions,
  type ReceivedPdu,
  type SessionEnd,
} from "../../lib/session/initiator/mod.ts";
import type { Field } from "../../lib/wire/field.ts";
import { Bhs, bhsBytes, Opcode, paddingOf } from "../../lib/wire/iscsi/bhs.ts";
import { pduKind } from "../../lib/wire/iscsi/pdu.ts";
import { formatText, parseText, type TextPair } from "../../lib/wire/iscsi/text.ts";

export class BenchClock implements Clock {
  #now = 1000;
  #timers: { at: number; fn: () => void }[] = [];

  nowMs(): number {
    return this.#now;
  }
  wallMs(): number {
    return this.#now;
  }
  after(delayMs: number, fn: () => void): Timer {
    const timer = { at: this.#now + delayMs, fn };
    this.#timers.push(timer);
    return { cancel: () => this.#timers = this.#timers.filter((t) => t !== timer) };
  }
  advance(ms: number): void {
    const end = this.#now + ms;
    for (;;) {
      const next = this.#timers.toSorted((a, b) => a.at - b.at)[0];
      if (next === undefined || next.at > end) break;
      this.#timers = this.#timers.filter((t) => t !== next);
      this.#now = next.at;
      next.fn();
    }
    this.#now = end;
  }
}

export const benchRandom: RandomSource = { fill: (bytes) => bytes.forEach((_, i) => bytes[i] = i * 37 + 11) };

/** A PDU that the initiator sent. */
export interface SentPdu {
  readonly opcode: number;
  readonly data: Uint8Array;
  get(name: string): number;
}

export class Rig {
  readonly clock = new BenchClock();
  readonly session: InitiatorSession;
  readonly async: { event: number; pdu: ReceivedPdu }[] = [];
  readonly rejected: number[] = [];
  loggedIn = false;
  end: SessionEnd | null = null;
  /** What the stream was told. */
  aborted = false;
  ended = false;
  /** False: bytes stay with the stream until releaseAll(). */
  autoRelease = true;
  statSn = 100;
  maxCmdSn = 40;
  expCmdSn = 1;
  #bytes: number[] = [];
  #held: SendRelease[] = [];
  #heldBytes = 0;

  constructor(options: Partial<InitiatorSessionOptions> = {}) {
    const held = this.#held;
    // deno-lint-ignore no-this-alias
    const rig = this;
    const stream: Stream = {
      local: { hostname: "127.0.0.1", port: 1 },
      remote: { hostname: "127.0.0.1", port: 2 },
      get pendingBytes() {
        return rig.#heldBytes;
      },
      send(buffer, start, length, release) {
        for (let i = start; i < start + length; i++) rig.#bytes.push(buffer[i]!);
        if (!rig.autoRelease) rig.#heldBytes += length;
        if (release === null) return;
        if (rig.autoRelease) release.released();
        else held.push(release);
      },
      end: () => this.ended = true,
      abort: () => this.aborted = true,
    };
    this.session = new InitiatorSession(stream, this.clock, benchRandom, {
      initiatorName: "iqn.2026-11.net.plimsoll.test:rig",
      targetName: "iqn.2026-11.net.plimsoll.test:target",
      isid: 0x8000_0000_0001,
      chap: null,
      mutual: null,
      ...options,
    }, {
      loggedIn: () => this.loggedIn = true,
      closed: (end) => {
        assert.equal(this.end, null, "closed is told once");
        this.end = end;
      },
      asyncMessage: (event, pdu) => this.async.push({ event, pdu }),
      rejected: (reason) => this.rejected.push(reason),
    });
    this.session.start();
  }

  /** Releases everything that the stream holds. */
  releaseAll(): void {
    this.#heldBytes = 0;
    for (const release of this.#held.splice(0)) release.released();
    this.session.drained();
  }

  /** Everything sent since the last call, as PDUs; digests are not looked at. */
  sent(digests = { header: false, data: false }): SentPdu[] {
    const bytes = Uint8Array.from(this.#bytes.splice(0));
    const view = new DataView(bytes.buffer);
    const out: SentPdu[] = [];
    for (let at = 0; at < bytes.length;) {
      const length = Bhs.dataSegmentLength.get(view, at);
      const kind = pduKind(Bhs.opcode.get(view, at))!;
      const head = at;
      const data = at + bhsBytes + (digests.header ? 4 : 0);
      out.push({
        opcode: kind.opcode,
        data: bytes.slice(data, data + length),
        get: (name) => {
          const field = kind.fields[name];
          assert.ok(field !== undefined, `${kind.name} has no field ${name}`);
          return field.get(view, head);
        },
      });
      at = data + length + paddingOf(length) + (digests.data && length > 0 ? 4 : 0);
    }
    return out;
  }

  /** The one PDU sent since the last call. */
  sentOne(opcode: number): SentPdu {
    const sent = this.sent();
    assert.equal(sent.length, 1, `sent ${sent.map((p) => pduKind(p.opcode)!.name).join(", ") || "nothing"}`);
    assert.equal(sent[0]!.opcode, opcode);
    return sent[0]!;
  }

  /** Bytes of a PDU of the target; StatSN counts itself where `values` does not say. */
  pdu(opcode: number, values: Record<string, number>, data: Uint8Array = new Uint8Array(0)): Uint8Array {
    const fields: Readonly<Record<string, Field>> = pduKind(opcode)!.fields;
    const bytes = new Uint8Array(bhsBytes + data.length + paddingOf(data.length));
    const view = new DataView(bytes.buffer);
    const all: Record<string, number> = {
      opcode,
      dataSegmentLength: data.length,
      expCmdSn: this.expCmdSn,
      maxCmdSn: this.maxCmdSn,
      ...("final" in fields ? { final: 1 } : {}),
      ...("reserved" in fields ? { reserved: 0xffff_ffff } : {}),
      ...values,
    };
    const counted = opcode === Opcode.scsiDataIn
      ? all["statusPresent"] === 1
      : opcode === Opcode.nopIn
      ? all["initiatorTaskTag"] !== 0xffff_ffff
      : opcode !== Opcode.r2t;
    if (all["statSn"] === undefined) all["statSn"] = counted ? this.statSn++ : this.statSn;
    for (const [name, value] of Object.entries(all)) fields[name]!.set(view, 0, value);
    bytes.set(data, bhsBytes);
    return bytes;
  }

  /** The target sends. `pieceBytes`: in pieces of that size, each in a buffer of its own. */
  feed(bytes: Uint8Array, pieceBytes = bytes.length): void {
    for (let at = 0; at < bytes.length; at += pieceBytes) {
      const piece = bytes.slice(at, at + pieceBytes);
      const buffer = new Uint8Array(piece.length + 5).fill(0xee);
      buffer.set(piece, 3);
      this.session.received(buffer, new DataView(buffer.buffer), 3, 3 + piece.length);
      buffer.fill(0xdd); // the session keeps no reference
    }
  }

  answer(opcode: number, values: Record<string, number>, data?: Uint8Array): void {
    this.feed(this.pdu(opcode, values, data));
  }

  close(reason = "closed by peer"): void {
    this.session.closed(reason);
  }

  loginRequest(): { pdu: SentPdu; pairs: readonly TextPair[] } {
    const pdu = this.sentOne(Opcode.loginRequest);
    const parsed = parseText(pdu.data, 0, pdu.data.length);
    assert.ok(parsed.kind === "pairs");
    return { pdu, pairs: parsed.pairs };
  }

  loginAnswer(values: Record<string, number>, pairs: readonly TextPair[] = []): void {
    this.answer(Opcode.loginResponse, { tsih: 7, ...values }, formatText(pairs));
  }

  /** Brings the session to full feature phase; `answers` change what the target answers to the offers. */
  login(answers: Record<string, string> = {}): this {
    this.loginRequest();
    this.loginAnswer({ transit: 1, currentStage: 0, nextStage: 1 }, [{ key: "AuthMethod", value: "None" }]);
    const { pairs } = this.loginRequest();
    const defaults: Record<string, string> = {
      HeaderDigest: "None",
      DataDigest: "None",
      MaxRecvDataSegmentLength: "4096",
      InitialR2T: "No",
      FirstBurstLength: "8192",
      MaxBurstLength: "16384",
      MaxOutstandingR2T: "2",
      ...answers,
    };
    const replies = pairs.map(({ key, value }) => ({ key, value: defaults[key] ?? value }));
    this.loginAnswer({ transit: 1, currentStage: 1, nextStage: 3 }, replies);
    assert.ok(this.loggedIn);
    return this;
  }

  /** Submits a command and keeps what becomes of it in `done`. */
  submit(more: Partial<InitiatorCommand> = {}): InitiatorCommand & { doneCount: () => number } {
    const command = Object.assign(new InitiatorCommand(), more);
    let count = 0;
    command.done = () => count++;
    this.session.submit(command);
    return Object.assign(command, { doneCount: () => count });
  }
}
