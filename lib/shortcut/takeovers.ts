// The new owner's end of sessions that move with their connections: takes them over, and ends them when whoever passes their
// packets on is gone or says so.

import { limits } from "../base/limits.ts";
import type { Stream, StreamHandler } from "../base/network.ts";
import type { MessageAnswer } from "../forward/mod.ts";
import type { AdoptedSession } from "../session/target_node.ts";
import type { TargetPortal } from "../session/target_directory.ts";
import { MessageKind, MessageRefusal } from "../wire/scsi/member_message.ts";
import {
  decodeFlow,
  decodeHeld,
  decodeRestart,
  decodeTake,
  encodeFlow,
  type FlowEnds,
  type MovedSession,
  type TakeMessage,
} from "../wire/scsi/session_move.ts";
import { everyFlow, flowKey, Owner } from "./flow_key.ts";
import type { MoveParts, Steering } from "./steering.ts";

export interface TakeoverParts extends MoveParts {
  readonly steering: Steering;
  /** See TargetNode.adopt. */
  readonly adopt: (
    moved: MovedSession,
    portal: TargetPortal,
    held: Uint8Array<ArrayBuffer>,
    take: (handler: (stream: Stream) => StreamHandler) => string | null,
    ended: () => void,
  ) => AdoptedSession | string;
  /** May this member serve, and does it want more sessions? */
  readonly mayServe: () => boolean;
  /** Asks the initiator of a session to log out. */
  readonly sendAway: (session: number, reason: string) => void;
  /** What another member does; null: it is down. */
  readonly stateOf: (member: string) => "joining" | "up" | "draining" | null;
}

interface Taken extends FlowEnds {
  readonly entry: string;
  /** The process of the entry, and the one before it, by which the session came; "": there was none. */
  run: string;
  runBefore: string;
  /** The process of now has asked for it, and the group has not shown that process yet. */
  resuming: boolean;
  readonly session: AdoptedSession;
  sentAway: boolean;
  ending: boolean;
  /** So long it stays without its entry, which is started anew; by the clock. */
  keptUntilMs: number;
}

interface Held {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly offsets: Set<number>;
  have: number;
}

const retryMs = 500;

export class Takeovers {
  readonly #parts: TakeoverParts;
  readonly #taken = new Map<string, Taken>();
  /** By moves. */
  readonly #held = new Map<string, Held>();
  #heldBytes = 0;
  /** Connections that are over: a message that comes late must not bring them back. By the clock. */
  readonly #over = new Map<string, number>();
  /** Messages "take" that were taken: one that comes again is answered the same. */
  readonly #answered = new Map<string, number>();
  /** The process that each entry has said it is: sessions by an older one are not taken. */
  readonly #claims = new Map<string, string>();

  constructor(parts: TakeoverParts) {
    this.#parts = parts;
  }

  /** Sessions here that came with their connections. */
  get taken(): number {
    return this.#taken.size;
  }

  /** Who passes the packets of this connection on, and its process: this member where it came by its own portal. */
  entryOf(ends: FlowEnds): { readonly entry: string; readonly run: string } {
    return this.#taken.get(flowKey(ends)) ?? { entry: this.#parts.self, run: this.#parts.run() };
  }

  /** Whether it has to stay here since the member that passes its packets on is started anew. */
  awaitsEntry(ends: FlowEnds): boolean {
    const flow = this.#taken.get(flowKey(ends));
    return flow !== undefined && this.#isKept(flow);
  }

  /** It has moved on to another member. */
  forget(ends: FlowEnds): void {
    this.#taken.delete(flowKey(ends));
  }

  /** A message "held" of `from`. */
  readonly heldCame = (from: string, body: Uint8Array, answer: (answer: MessageAnswer) => void): void => {
    const message = decodeHeld(body);
    if (message === null || message.totalBytes > limits.moveHeldBytesMax) return answer(malformed);
    const key = nameOf(from, message);
    let held = this.#held.get(key);
    if (held === undefined) {
      if (this.#heldBytes + message.totalBytes > limits.moveBufferBytesMax) return answer(notNow);
      held = { bytes: new Uint8Array(message.totalBytes), offsets: new Set(), have: 0 };
      this.#held.set(key, held);
      this.#heldBytes += message.totalBytes;
      this.#parts.clock.after(limits.moveArriveMs, () => this.#takeHeld(key));
    }
    if (held.bytes.length !== message.totalBytes) return answer(malformed);
    if (!held.offsets.has(message.offsetBytes)) {
      held.offsets.add(message.offsetBytes);
      held.bytes.set(message.bytes, message.offsetBytes);
      held.have += message.bytes.length;
    }
    answer(null);
  };

  /** A message "take" of `from`: GOOD says that the session is here. Refused: it is not, and will not be. */
  readonly takeCame = (from: string, body: Uint8Array, answer: (answer: MessageAnswer) => void): void => {
    const message = decodeTake(body);
    if (message === null) return answer(malformed);
    const again = nameOf(from, message);
    if (this.#knows(this.#answered, again)) return answer(null);
    const held = this.#takeHeld(again);
    const bytes = message.heldBytes === 0 ? new Uint8Array(0) : held;
    const problem = bytes === null || bytes.length !== message.heldBytes
      ? "what its initiator has sent has not come along"
      : this.#take(message, bytes);
    if (problem === null) {
      this.#note(this.#answered, again);
      return answer(null);
    }
    this.#parts.log.info("a session is not taken over", { from, reason: problem });
    answer(notNow);
  };

  /** A message "end" of the member whose portal it is: answered when nothing of the session is here. */
  readonly endCame = (from: string, body: Uint8Array, answer: (answer: MessageAnswer) => void): void => {
    const message = decodeFlow(body);
    if (message === null) return answer(malformed);
    this.#claims.set(from, message.text);
    const key = flowKey(message);
    const every = key === flowKey(everyFlow);
    if (!every) this.#note(this.#over, key);
    const flows = [...this.#taken.values()].filter((f) =>
      f.entry === from && (every ? f.run !== message.text : flowKey(f) === key)
    );
    let left = flows.length + 1;
    const one = () => {
      if (--left === 0) answer(null);
    };
    for (const flow of flows) this.#end(flow, "its portal's member says that it is over", one);
    one();
  };

  /** A message "keep" of the member whose portal it is, before its process ends: GOOD promises it. */
  readonly keepCame = (from: string, body: Uint8Array, answer: (answer: MessageAnswer) => void): void => {
    const message = decodeRestart(body);
    if (message === null) return answer(malformed);
    const flow = this.#taken.get(flowKey(message));
    if (flow === undefined || flow.entry !== from || flow.run !== message.run || flow.ending) {
      return answer(notNow);
    }
    flow.resuming = false;
    this.#keep(flow, message.seconds * 1000);
    answer(null);
  };

  /** A message "resume" of the process in its place: GOOD says that the session is here, and hears that process from now on. */
  readonly resumeCame = (from: string, body: Uint8Array, answer: (answer: MessageAnswer) => void): void => {
    const message = decodeRestart(body);
    if (message === null || message.nextRun === "") return answer(malformed);
    const flow = this.#taken.get(flowKey(message));
    if (flow === undefined || flow.entry !== from || flow.ending) return answer(notNow);
    if (flow.run === message.nextRun && flow.runBefore === message.run) return answer(null); // told again
    if (flow.run !== message.run || !this.#isKept(flow)) return answer(notNow);
    flow.runBefore = flow.run;
    flow.run = message.nextRun;
    flow.sentAway = false;
    flow.resuming = true;
    this.#keep(flow, limits.restartKeepMs); // until that process is seen
    answer(null);
  };

  /** Members have come, gone, or begun to stop. */
  fellowsChanged(): void {
    for (const flow of [...this.#taken.values()]) this.#look(flow);
  }

  #look(flow: Taken): void {
    const { runOf, stateOf, sendAway } = this.#parts;
    const { entry, session } = flow;
    if (flow.ending || this.#taken.get(flowKey(flow)) !== flow) return;
    const here = runOf(entry) === flow.run;
    if (here && flow.resuming) {
      flow.resuming = false;
      flow.keptUntilMs = 0; // the restart is over
    }
    if (this.#isKept(flow)) return;
    if (!here) return this.#end(flow, `${entry}, which passed its packets on, is gone`, () => {});
    if (flow.sentAway || stateOf(entry) !== "draining") return;
    flow.sentAway = true;
    sendAway(session.identity.id, `${entry}, which passes its packets on, stops`);
  }

  #keep(flow: Taken, ms: number): void {
    const { clock } = this.#parts;
    const forMs = Math.min(ms, limits.restartKeepMs);
    flow.keptUntilMs = clock.nowMs() + forMs;
    clock.after(forMs, () => this.#look(flow));
  }

  /** Not any more when another process of its entry takes logins: that one has asked for what it goes on with. */
  #isKept({ entry, run, runBefore, keptUntilMs }: Taken): boolean {
    const { clock, runOf, stateOf } = this.#parts;
    if (keptUntilMs <= clock.nowMs()) return false;
    const there = runOf(entry);
    return there === null || there === run || there === runBefore || stateOf(entry) === "joining";
  }

  /** Null: it is here now. */
  #take({ state, session: moved, entry, run }: TakeMessage, held: Uint8Array<ArrayBuffer>): string | null {
    const { self, flows, adopt, mayServe, steering, log } = this.#parts;
    const key = flowKey(state);
    const home = entry === self;
    if (!mayServe()) return "the member does not take sessions now";
    if (this.#knows(this.#over, key) || this.#taken.has(key) || (home && !steering.mayReturn(state))) {
      return "it is over";
    }
    if (run !== (home ? this.#parts.run() : this.#parts.runOf(entry))) {
      return "its portal's member is not there";
    }
    if (!home && (this.#claims.get(entry) ?? run) !== run) return "its portal's member has been started anew";
    if (!isSane(moved)) return "what was agreed with its initiator makes no sense";
    const portal = { address: state.portal, targetPortalGroupTag: moved.targetPortalGroupTag };
    const ends = { client: state.client, portal: state.portal };
    let flow: Taken | null = null; // null: it may end before it is ours, by what its initiator has sent meanwhile
    const ended = () => {
      if (flow === null || this.#taken.get(key) !== flow) return;
      this.#taken.delete(key);
      this.#tellOver(flow);
    };
    const session = adopt(moved, portal, held, (handler) => flows.take(state, handler), ended);
    if (typeof session === "string") return session;
    log.debug("a session was taken over", { session: session.identity.id, entry });
    if (home) {
      steering.forget(state);
      return null;
    }
    const unkept = { runBefore: "", resuming: false, keptUntilMs: 0 };
    flow = { ...ends, entry, run, session, sentAway: false, ending: false, ...unkept };
    if (session.ended) this.#tellOver(flow);
    else this.#taken.set(key, flow);
    return null;
  }

  /** The entry need not pass anything on any more. */
  #tellOver(flow: Taken): void {
    const { messenger, runOf, clock } = this.#parts;
    const { entry, run, client, portal } = flow;
    if (runOf(entry) !== run && !this.#isKept(flow)) return;
    const body = encodeFlow({ client, portal, text: Owner.nobody });
    messenger.send(entry, MessageKind.moveSteer, body, limits.moveMessageMs, (outcome) => {
      if (outcome.kind === "lost") clock.after(retryMs, () => this.#tellOver(flow));
    });
  }

  #end(flow: Taken, reason: string, done: () => void): void {
    const { session } = flow;
    flow.ending = true;
    if (session.ended) return done();
    session.end(reason);
    session.whenEnded(done);
  }

  #takeHeld(key: string): Uint8Array<ArrayBuffer> | null {
    const held = this.#held.get(key);
    if (held === undefined) return null;
    this.#held.delete(key);
    this.#heldBytes -= held.bytes.length;
    return held.have === held.bytes.length ? held.bytes : null;
  }

  #note(list: Map<string, number>, key: string): void {
    const { clock } = this.#parts;
    for (const [other, untilMs] of list) if (untilMs <= clock.nowMs()) list.delete(other);
    if (list.size >= limits.connectionsMax) list.delete(list.keys().next().value!);
    list.set(key, clock.nowMs() + limits.moveForgetMs);
  }

  #knows(list: ReadonlyMap<string, number>, key: string): boolean {
    return (list.get(key) ?? 0) > this.#parts.clock.nowMs();
  }
}

/** Of one move: a process counts its own. */
function nameOf(
  from: string,
  { sender, number }: { readonly sender: string; readonly number: number },
): string {
  return `${from} ${sender} ${number}`;
}

/** Bounds that every session has here (RFC 7143 §13, limits.ts). */
function isSane(moved: MovedSession): boolean {
  const { firstBurstLength, maxBurstLength, peerMaxRecvDataSegmentLength, maxOutstandingR2t } = moved;
  return moved.initiatorName.length > 0 && moved.targetName.length > 0 && firstBurstLength >= 512 &&
    firstBurstLength <= Math.min(limits.firstBurstBytesMax, maxBurstLength) &&
    maxBurstLength <= limits.burstBytesMax && peerMaxRecvDataSegmentLength >= 512 &&
    moved.ownMaxRecvDataSegmentLength <= limits.receiveDataSegmentBytesMax &&
    maxOutstandingR2t >= 1 && maxOutstandingR2t <= limits.outstandingR2tMax;
}

const malformed = { reason: MessageRefusal.malformed };
const notNow = { reason: MessageRefusal.notNow };
