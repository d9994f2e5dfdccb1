// The entry's end of sessions that have moved on with their connections: their clients' packets still come here, and are
// passed on by the kernel. It knows who may have each of them, so that a new login of the same initiator port waits until
// nothing of the old session is left (docs/short-cut.md, "The whole connection").

import type { FlowTaker, TcpState } from "../base/flow.ts";
import type { Clock } from "../base/clock.ts";
import { limits } from "../base/limits.ts";
import type { Log } from "../base/log.ts";
import type { MessageAnswer, Messenger } from "../forward/mod.ts";
import { MessageKind, MessageRefusal } from "../wire/scsi/member_message.ts";
import { decodeFlow, encodeFlow, type MovedSession } from "../wire/scsi/session_move.ts";
import { flowKey, Owner } from "./flow_key.ts";

export interface MoveParts {
  readonly clock: Clock;
  readonly log: Log;
  readonly flows: FlowTaker;
  readonly messenger: Pick<Messenger, "send">;
  /** This member, and its process. */
  readonly self: string;
  readonly run: () => string;
  /** The process that is another member now; null: it is down, and has stopped serving. */
  readonly runOf: (member: string) => string | null;
  /** Where it serves its peers. */
  readonly addressOf: (member: string) => string | null;
}

type NexusEnds = Pick<MovedSession, "initiatorName" | "isid" | "targetName">;

interface Steered {
  readonly key: string;
  readonly nexus: NexusEnds;
  /** As it was when it left here. */
  readonly state: TcpState;
  owner: string;
  /** Members that may have it, and the processes that these were. */
  readonly holders: Map<string, string>;
  /** Its owner has said that nothing of the session is left. */
  over: boolean;
  /** It is being ended: who waits for that. */
  ending: (() => void)[] | null;
}

/** Between two attempts to end a session elsewhere, milliseconds. */
const retryMs = 200;

export class Steering {
  readonly #parts: MoveParts;
  readonly #flows = new Map<string, Steered>();

  constructor(parts: MoveParts) {
    this.#parts = parts;
  }

  /** Sessions that are elsewhere, by connections whose packets are passed on. */
  get steered(): number {
    return [...this.#flows.values()].filter(({ over }) => !over).length;
  }

  /** A session of this member has left for `owner`; the rules hold already. */
  begin(state: TcpState, nexus: NexusEnds, owner: string): void {
    const key = flowKey(state);
    const flow = { key, nexus, state, owner, holders: new Map<string, string>(), over: false, ending: null };
    this.#flows.set(key, flow);
    this.#holds(flow, owner);
  }

  /** It is this member's own again, or has never left; the rules hold no more. */
  forget(state: TcpState): void {
    this.#flows.delete(flowKey(state));
  }

  /** Whether it may come back here. */
  mayReturn(state: TcpState): boolean {
    return this.#flows.get(flowKey(state))?.ending === null;
  }

  /** Nobody knows whether it has arrived. */
  lost(state: TcpState): void {
    const flow = this.#flows.get(flowKey(state));
    if (flow !== undefined) this.#end(flow, () => {});
  }

  /** A message "steer" of its owner: whose it is now. */
  readonly heard = (from: string, body: Uint8Array, answer: (answer: MessageAnswer) => void): void => {
    const message = decodeFlow(body);
    if (message === null) return answer({ reason: MessageRefusal.malformed });
    const flow = this.#flows.get(flowKey(message));
    const { text } = message;
    if (flow === undefined || flow.ending !== null) {
      return answer(text === Owner.nobody || text === Owner.unknown ? null : refused);
    }
    // Who has given it away may still say that it has come back, or that nobody knows.
    const held = flow.holders.has(from);
    if (held && text === flow.owner) return answer(null); // told again
    const may = flow.owner === from || (held && (text === from || text === Owner.unknown));
    if (!may) return answer(refused);
    if (text === Owner.unknown) this.#end(flow, () => {});
    else if (text === Owner.nobody) this.#over(flow);
    else if (!this.#steer(flow, text)) return answer(refused);
    answer(null);
  };

  /** Calls `then` when nothing of a session of this initiator port with the target is left at any member it has moved to. */
  whenFree({ initiatorName, isid, targetName }: NexusEnds, then: () => void): void {
    const found = [...this.#flows.values()].find(({ nexus }) =>
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
    const { self, addressOf, flows, log } = this.#parts;
    if (owner !== self) {
      const address = addressOf(owner);
      if (address === null || !flows.reaches(address)) return false;
      try {
        flows.steer(flow.state.client, flow.state.portal, address);
      } catch (error) {
        log.warn("packets of a moved session cannot be steered", { reason: (error as Error).message });
        return false;
      }
    }
    flow.owner = owner;
    this.#holds(flow, owner);
    return true;
  }

  #holds({ holders }: Steered, member: string): void {
    const run = this.#parts.runOf(member);
    if (run !== null) holders.set(member, run);
  }

  /** Its owner says that nothing of the session is left; the last packets of the connection may still be on their way. */
  #over(flow: Steered): void {
    flow.over = true;
    this.#parts.clock.after(limits.moveLingerMs, () => {
      if (this.#flows.get(flow.key) !== flow || flow.ending !== null) return;
      this.#release(flow);
      this.#flows.delete(flow.key);
    });
  }

  /** The client is reset, and whoever may have the session ends it. */
  #end(flow: Steered, then: () => void): void {
    if (flow.ending !== null) return void flow.ending.push(then);
    flow.ending = [then];
    this.#release(flow);
    this.#parts.flows.provoke(flow.state); // what it answers meets a closed port here
    let left = 1;
    const one = () => {
      if (--left > 0) return;
      this.#flows.delete(flow.key);
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
