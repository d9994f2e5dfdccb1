// The entry's end of its own restart: sessions that are elsewhere outlive the process that passes their packets on, if their
// owners promise to keep them, and the next process asks for each before it takes a login (docs/short-cut.md, "A restart of
// the entry").

import { limits } from "../base/limits.ts";
import type { MessageOutcome } from "../forward/mod.ts";
import { MessageKind, MessageRefusal } from "../wire/scsi/member_message.ts";
import { encodeRestart } from "../wire/scsi/session_move.ts";
import { flowKey } from "./flow_key.ts";
import type { MoveParts, SteeredFlow, Steering } from "./steering.ts";
import { tellUntilKnown } from "./telling.ts";

export interface EntryRestartParts extends MoveParts {
  readonly steering: Steering;
}

/** Between two questions to an owner that has not taken its session over yet, milliseconds. */
const retryMs = 200;

export class EntryRestart {
  readonly #parts: EntryRestartParts;

  constructor(parts: EntryRestartParts) {
    this.#parts = parts;
  }

  /**
   * Before the process stops: `done` gets the sessions whose owners have promised to keep them, limits.moveMessageMs later at
   * the latest. From now on none of them moves.
   */
  keep(done: (kept: SteeredFlow[]) => void): void {
    const { steering, clock } = this.#parts;
    steering.held = true;
    const untilMs = clock.nowMs() + limits.moveMessageMs;
    /** By connections: who has promised, or never will. */
    const promised = new Map<string, string>();
    const refused = new Map<string, string>();
    const round = () => {
      const flows = steering.list();
      const open = flows.filter(({ state, owner }) =>
        promised.get(flowKey(state)) !== owner && refused.get(flowKey(state)) !== owner
      );
      if (open.length === 0 || clock.nowMs() >= untilMs) {
        return done(flows.filter(({ state, owner }) => promised.get(flowKey(state)) === owner));
      }
      const timeMs = untilMs - clock.nowMs();
      let again = false;
      forEach(open, (flow, next) => {
        const { owner, state } = flow;
        this.#tell(flow, limits.restartKeepMs, timeMs, (outcome) => {
          const waits = outcome.kind === "refused" && outcome.reason === MessageRefusal.notNow; // it may be on its way there
          if (outcome.kind === "taken") promised.set(flowKey(state), owner);
          else if (outcome.kind === "lost" || waits) again = true;
          else refused.set(flowKey(state), owner);
          next();
        });
      }, () => {
        if (again) clock.after(retryMs, round);
        else round();
      });
    };
    round();
  }

  /** They end with this process after all. */
  keepNot(flows: readonly SteeredFlow[]): void {
    forEach(flows, (flow, next) => this.#tell(flow, 0, limits.moveMessageMs, next), () => {});
  }

  /**
   * After a start: goes on with the sessions that `lastRun`, this member's process before, has handed over, as far as their
   * owners still have them; the others are ended. `name`: by which the kernel passes their packets on until then. `done` is
   * told how many go on; what may be left of the others is known to Steering.
   */
  resume(name: string, lastRun: string, flows: readonly SteeredFlow[], done: (count: number) => void): void {
    const { steering, flows: taker, log } = this.#parts;
    steering.held = true;
    const theirs: SteeredFlow[] = [];
    forEach(flows, (flow, next) => {
      if (!steering.resume(flow)) return next();
      this.#ask(flow, lastRun, (outcome) => {
        if (outcome.kind === "taken") theirs.push(flow);
        next();
      });
    }, () => {
      steering.held = false;
      try {
        taker.keepNoMore(name);
      } catch (error) {
        // It would go on passing packets to whoever has had a session first.
        log.error("a table of the packet filter stays; its connections are ended", {
          reason: (error as Error).message,
        });
        theirs.length = 0;
      }
      for (const flow of flows) if (!theirs.includes(flow)) steering.lost(flow.state);
      done(theirs.length);
    });
  }

  #tell(
    { owner, state: { client, portal } }: SteeredFlow,
    keepMs: number,
    timeMs: number,
    told: (outcome: MessageOutcome) => void,
  ): void {
    const seconds = keepMs / 1000;
    const body = encodeRestart({ client, portal, seconds, run: this.#parts.run(), nextRun: "" });
    this.#parts.messenger.send(owner, MessageKind.moveKeep, body, timeMs, told);
  }

  #ask(
    { owner, state: { client, portal } }: SteeredFlow,
    run: string,
    told: (outcome: MessageOutcome) => void,
  ): void {
    const body = encodeRestart({ client, portal, seconds: 0, run, nextRun: this.#parts.run() });
    tellUntilKnown(this.#parts, owner, MessageKind.moveResume, body, told);
  }
}

/** A few at a time. */
function forEach<T>(
  all: readonly T[],
  work: (one: T, next: () => void) => void,
  done: () => void,
): void {
  let begun = 0;
  let left = all.length;
  if (left === 0) return done();
  const next = () => {
    if (begun < all.length) work(all[begun++]!, one);
  };
  const one = () => {
    if (--left === 0) done();
    else next();
  };
  for (let i = 0; i < limits.restartAsksMax; i++) next();
}
