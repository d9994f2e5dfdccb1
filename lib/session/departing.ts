// One connection on its way to another member or thread: stops between two PDUs with every command in flight answered, then the
// connection itself (docs/short-cut.md, "The whole connection").

import type { Clock } from "../base/clock.ts";
import type { MovableFlow, TcpState } from "../base/flow.ts";
import { limits } from "../base/limits.ts";
import type { DetachedStream, Stream } from "../base/network.ts";
import { type Departure, movedSession } from "./departure.ts";
import type { FrameReader } from "./framing.ts";
import type { FullFeature } from "./full_feature.ts";
import type { Link } from "./link.ts";
import { PduHold } from "./pdu_hold.ts";
import type { TargetLogin } from "./target_login.ts";
import type { TargetSession } from "./target_session.ts";
import type { NexusBaggage } from "./task.ts";

/** How a connection leaves. */
export interface Exit<State> {
  /** Calls `done` when nothing is sent or heard here any more, and all that has come was delivered. */
  leave(
    done: (
      result:
        | { readonly kind: "lent"; readonly state: State }
        | { readonly kind: "refused"; readonly reason: string },
    ) => void,
  ): void;
  /** It goes on here after all. False: only abort() is left. */
  stay(): boolean;
  gone(): void;
}

/** To another member; `owner`, an IPv4 address, gets the client's packets then. */
export function exitToMember(movable: MovableFlow, owner: string): Exit<TcpState> {
  return {
    leave: (done) => movable.depart(owner, done),
    stay: () => movable.stay(),
    gone: () => movable.gone(),
  };
}

/** To another thread: what has not been read stays in the socket. */
export function exitToThread(stream: Stream): Exit<DetachedStream> {
  return {
    leave(done) {
      const state = stream.detach?.() ?? null;
      if (state !== null) done({ kind: "lent", state });
      else done({ kind: "refused", reason: "its connection cannot be handed over" });
    },
    stay: () => false,
    gone: () => {},
  };
}

/** Of a nexus that is known as well where its session goes. */
export const noBaggage: NexusBaggage = { unitNumber: 0, unitDigest: 0, attentions: [] };

export interface DepartingParts<State> {
  readonly clock: Clock;
  readonly exit: Exit<State>;
  /** What of its nexus goes along, now that nothing is under way; a string says why it stays. */
  readonly baggage: () => NexusBaggage | string;
  readonly reader: FrameReader;
  readonly link: Link;
  readonly session: TargetSession;
  readonly fullFeature: FullFeature;
  readonly login: TargetLogin;
  /** Whether the connection is there, and serves. */
  readonly open: () => boolean;
  /** It stays: goes on with what has waited. */
  readonly goOn: (bytes: Uint8Array<ArrayBuffer>) => void;
  readonly gone: () => void;
  readonly fail: (reason: string) => void;
}

/** How often to look whether it may go, and how long without a new byte is a pause of the initiator, milliseconds and looks. */
const lookMs = 1;
const pauseLooks = 2;
/** An initiator that never pauses is not waited for. */
const pauseLooksMax = 20;

export class Departing<State> {
  readonly #parts: DepartingParts<State>;
  /** What comes waits here. */
  readonly #hold: PduHold;
  #untilMs = 0;
  /** Looks since it has been at rest, and of these the last ones in which nothing came; bytes that waited at the last one. */
  #looks = 0;
  #paused = 0;
  #bytes = -1;

  constructor(parts: DepartingParts<State>) {
    this.#parts = parts;
    const { reader, fullFeature } = parts;
    this.#hold = new PduHold({
      headerDigest: reader.headerDigest,
      dataDigest: reader.dataDigest,
      passes: (view, at) => fullFeature.isWanted(view, at),
      pass: (bytes) => void reader.received(bytes, new DataView(bytes.buffer), 0, bytes.length),
    });
  }

  /** A string says why it cannot be: it goes on. */
  begin(done: (departure: Departure<State> | string) => void): void {
    const { clock, reader } = this.#parts;
    reader.holdAtBorder = true;
    this.#untilMs = clock.nowMs() + limits.moveQuietMs;
    this.#look(done);
  }

  received(buffer: Uint8Array, view: DataView, start: number, end: number): void {
    const { reader } = this.#parts;
    const at = reader.partial ? reader.received(buffer, view, start, end) : start;
    if (at < end && !reader.partial) this.#hold.received(buffer.subarray(at, end));
  }

  /** Between a pause of the initiator and the next owner's first turn nothing should be on its way: it would be sent again. */
  #look(done: (departure: Departure<State> | string) => void): void {
    const { clock, open } = this.#parts;
    if (!open()) return this.#stay("its connection has ended", done);
    if (this.#hold.tooMuch) return this.#stay(tooMuch, done);
    const rest = this.#atRest;
    this.#paused = rest && this.#hold.bytes === this.#bytes ? this.#paused + 1 : 0;
    this.#looks = rest ? this.#looks + 1 : 0;
    if (rest && (this.#paused >= pauseLooks || this.#looks >= pauseLooksMax)) return this.#leave(done);
    if (clock.nowMs() >= this.#untilMs) {
      return this.#stay(`its commands are not answered within ${limits.moveQuietMs} ms`, done);
    }
    this.#bytes = this.#hold.bytes;
    clock.after(lookMs, () => this.#look(done));
  }

  /** No command, no answer, nothing half done. */
  get #atRest(): boolean {
    const { reader, session, link, fullFeature } = this.#parts;
    return !reader.partial && session.active === 0 && !session.window.gaps && !link.queued &&
      link.output.pdusUnderWay === 0 && link.receiptDue === 0 && !fullFeature.busy &&
      !session.logoutRequested;
  }

  #leave(done: (departure: Departure<State> | string) => void): void {
    const { exit, session, login, link, gone, fail } = this.#parts;
    exit.leave((result) => {
      if (result.kind === "refused") return this.#stay(result.reason, done);
      const baggage = this.#baggage();
      if (typeof baggage === "string") {
        this.#back();
        return this.#stay(baggage, done);
      }
      done({
        state: result.state,
        session: movedSession(session, login, link.statSn, baggage),
        held: this.#hold.all(),
        stay: () => {
          this.#back();
          this.#stay("", () => {});
        },
        gone: () => {
          exit.gone();
          gone();
        },
        abort: fail,
      });
    });
  }

  #baggage() {
    const { open, baggage } = this.#parts;
    if (!open() || !this.#atRest) return "its connection is closing";
    if (this.#hold.tooMuch) return tooMuch;
    return baggage();
  }

  #back(): void {
    if (!this.#parts.exit.stay()) this.#parts.fail("its packets cannot be had back");
  }

  #stay(reason: string, done: (refusal: string) => void): void {
    this.#parts.reader.holdAtBorder = false;
    this.#parts.goOn(this.#hold.all());
    done(reason);
  }
}

const tooMuch = "the initiator sends too much meanwhile";
