// The entry's end of sessions that have moved on with their connections: their clients' packets still come here, and are
// passed on by the kernel. It knows who may have each of them, so that a new login of the same initiator port waits until
// nothing of the old session is left (docs/short-cut.md, "The whole connection").

import type { FlowPoint, FlowTaker } from "../base/flow.ts";
import { limits } from "../base/limits.ts";
import type { Log } from "../base/log.ts";
import type { MessageAnswer } from "../forward/mod.ts";
import { MessageKind, MessageRefusal } from "../wire/scsi/member_message.ts";
import { decodeFlow, encodeFlow, type FlowEnds, type MovedSession } from "../wire/scsi/session_move.ts";
import { flowKey, Owner } from "./flow_key.ts";
import type { TellingParts } from "./telling.ts";

export interface MoveParts extends TellingParts {
  readonly log: Log;
  readonly flows: FlowTaker;
  /** This member, and its process. */
  readonly self: string;
  readonly run: () => string;
  /** Where another member serves its peers. */
  readonly addressOf: (member: string) => string | null;
}

export type NexusEnds = Pick<MovedSession, "initiatorName" | "isid" | "targetName">;

/** A session that is elsewhere. */
export interface SteeredFlow {
  readonly nexus: NexusEnds;
  /** As it was when it left here. */
  readonly state: FlowPoint;
  readonly owner: string;
  /** Members that may have it, and the processes that these were. */
  readonly holders: ReadonlyMap<string, string>;
}

interface Steered extends SteeredFlow {
  readonly key: string;
  owner: string;
  readonly holders: Map<string, string>;
  /** Its owner has said that nothing of the session is left. */
  over: boolean;
  /** The next process of this member is to take it up. */
  handedOver: boolean;
  /** It is being ended: who waits for that. */
  ending: (() => void)[] | null;
}

/** Between two attempts to end a session elsewhere, milliseconds. */
const retryMs = 200;

export class Steering {
  readonly #parts: MoveParts;
  readonly #flows = new Map<string, Steered>();
  /** Those that are being ended: their clients may use the same ports anew meanwhile. */
  readonly #ending = new Set<Steered>();
  /** Who has a session keeps it: the process of this member is on its way out, or in. */
  held = false;

  constructor(parts: MoveParts) {
    this.#parts = parts;
  }

  /** Sessions that are elsewhere and end with this process, by connections whose packets are passed on. */
  get steered(): number {
    const flows = [...this.#flows.values(), ...this.#ending];
    return flows.filter(({ over, handedOver }) => !over && !handedOver).length;
  }

  /** Those whose owner another member is. */
  list(): readonly SteeredFlow[] {
    const { self } = this.#parts;
    return [...this.#flows.values()].filter(({ over, owner }) => !over && owner !== self);
  }

  /** A session of this member has left for `owner`; the rules hold already. */
  begin(state: FlowPoint, nexus: NexusEnds, owner: string): void {
    this.#holds(this.#add({ state, nexus, owner, holders: new Map() }), owner);
  }

  /** One that this member's last process has handed over: its packets are steered from here again. False: that cannot be. */
  resume(flow: SteeredFlow): boolean {
    const added = this.#add(flow);
    return flow.holders.get(flow.owner) === this.#parts.runOf(flow.owner) && this.#pass(added, flow.owner);
  }

  /** This process need not wait for its end. */
  handedOver(ends: FlowEnds): void {
    const flow = this.#flows.get(flowKey(ends));
    if (flow !== undefined) flow.handedOver = true;
  }

  #add({ state, nexus, owner, holders }: SteeredFlow): Steered {
    const key = flowKey(state);
    const rest = { holders: new Map(holders), over: false, handedOver: false, ending: null };
    const flow = { key, nexus, state, owner, ...rest };
    this.#flows.set(key, flow);
    return flow;
  }

  /** It is this member's own again, or has never left; the rules hold no more. */
  forget(state: FlowEnds): void {
    this.#flows.delete(flowKey(state));
  }

  /** Whether it may come back here. */
  mayReturn(state: FlowEnds): boolean {
    return !this.held && this.#flows.has(flowKey(state));
  }

  /** Nobody knows whether it has arrived. */
  lost(state: FlowEnds): void {
    const flow = this.#flows.get(flowKey(state));
    if (flow !== undefined) this.#end(flow, () => {});
  }

  /** A message "steer" of its owner: whose it is now. */
  readonly heard = (from: string, body: Uint8Array, answer: (answer: MessageAnswer) => void): void => {
    const message = decodeFlow(body);
    if (message === null) return answer({ reason: MessageRefusal.malformed });
    const flow = this.#flows.get(flowKey(message));
    const { text } = message;
    if (flow === undefined) {
      return answer(text === Owner.nobody || text === Owner.unknown ? null : refused);
    }
    // Who has given it away may still say that it has come back, or that nobody knows.
    const held = flow.holders.has(from);
    if (held && text === flow.owner) return answer(null); // told again
    const may = flow.owner === from || (held && (text === from || text === Owner.unknown));
    const goesOn = flow.owner === from && text !== Owner.unknown && text !== Owner.nobody;
    if (!may || (this.held && goesOn)) return answer(refused);
    if (text === Owner.unknown) this.#end(flow, () => {});
    else if (text === Owner.nobody) this.#over(flow);
    else if (!this.#steer(flow, text)) return answer(refused);
    answer(null);
  };

  /** Calls `then` when nothing of a session of this initiator port with the target is left at any member it has moved to. */
  whenFree({ initiatorName, isid, targetName }: NexusEnds, then: () => void): void {
    const found = [...this.#ending, ...this.#flows.values()].find(({ nexus }) =>
      nexus.initiatorName === initiatorName && nexus.isid === isid && nexus.targetName === targetName
    );
    if (found === undefined) then();
    else this.#end(found, () => this.whenFree({ initiatorName, isid, targetName }, then));
  }

  /** A member that has gone takes the sessions it had with it. */
  fellowsChanged(): void {
    for (const flow of [...this.#flows.values()]) {
      const { owner, holders } = flow;
      if (owner !== this.#parts.self && holders.get(owner) !== this.#parts.runOf(owner)) {
        this.#end(flow, () => {});
      }
    }
  }

  /** False: packets cannot be steered there. A session that comes home is steered when it is there. */
  #steer(flow: Steered, owner: string): boolean {
    if (owner !== this.#parts.self && !this.#pass(flow, owner)) return false;
    flow.owner = owner;
    this.#holds(flow, owner);
    return true;
  }

  #pass({ state: { client, portal } }: Steered, owner: string): boolean {
    const { addressOf, flows, log } = this.#parts;
    const address = addressOf(owner);
    if (address === null || !flows.reaches(address)) return false;
    try {
      flows.steer(client, portal, address);
      return true;
    } catch (error) {
      log.warn("packets of a moved session cannot be steered", { reason: (error as Error).message });
      return false;
    }
  }

  #holds({ holders }: Steered, member: string): void {
    const run = this.#parts.runOf(member);
    if (run !== null) holders.set(member, run);
  }

  /** Its owner says that nothing of the session is left; the last packets of the connection may still be on their way. */
  #over(flow: Steered): void {
    flow.over = true;
    this.#parts.clock.after(limits.moveLingerMs, () => {
      if (this.#flows.get(flow.key) !== flow) return;
      this.#release(flow);
      this.#flows.delete(flow.key);
    });
  }

  /** The client is reset, and whoever may have the session ends it. */
  #end(flow: Steered, then: () => void): void {
    if (flow.ending !== null) return void flow.ending.push(then);
    flow.ending = [then];
    if (this.#flows.get(flow.key) === flow) {
      this.#flows.delete(flow.key);
      this.#release(flow);
    }
    this.#ending.add(flow);
    this.#parts.flows.provoke(flow.state); // what it answers meets a closed port here
    let left = 1;
    const one = () => {
      if (--left > 0) return;
      this.#ending.delete(flow);
      for (const next of flow.ending!) next();
    };
    for (const [member, run] of flow.holders) {
      if (member === this.#parts.self) continue;
      left++;
      this.#endAt(flow, member, run, one);
    }
    one();
  }

  #endAt(flow: Steered, member: string, run: string, done: () => void): void {
    const { messenger, runOf, clock } = this.#parts;
    if (runOf(member) !== run) return done(); // with that process it has gone
    const body = encodeFlow({
      client: flow.state.client,
      portal: flow.state.portal,
      text: this.#parts.run(),
    });
    messenger.send(member, MessageKind.moveEnd, body, limits.moveMessageMs, (outcome) => {
      if (outcome.kind === "taken") done();
      else clock.after(retryMs, () => this.#endAt(flow, member, run, done));
    });
  }

  #release({ state }: Steered): void {
    try {
      this.#parts.flows.steer(state.client, state.portal, null);
    } catch (error) {
      this.#parts.log.warn("a rule of a moved session stays", { reason: (error as Error).message });
    }
  }
}

const refused = { reason: MessageRefusal.notNow };
