// Sessions that move between members with their connections (docs/short-cut.md, "The whole connection"), as this member takes
// part: as the one that gives, the one that takes, and the one whose portal it is.

import type { Clock } from "../../base/clock.ts";
import type { FlowTaker } from "../../base/flow.ts";
import { limits } from "../../base/limits.ts";
import type { Log } from "../../base/log.ts";
import type { PrivateFile } from "../../base/private_file.ts";
import { parseAddress } from "../../config/address.ts";
import type { MessageServer, Messenger } from "../../forward/mod.ts";
import type { MemberRecord } from "../../meta/records.ts";
import type { LoginQuestion, TargetNode } from "../../session/target_node.ts";
import {
  EntryRestart,
  formatHandedOver,
  type MoveOutcome,
  SessionMover,
  type SteeredFlow,
  Steering,
  Takeovers,
} from "../../shortcut/mod.ts";
import { MessageKind } from "../../wire/scsi/member_message.ts";
import type { Members } from "./members.ts";
import { takeHandedOver } from "./portal_claim.ts";

export interface SessionMovesParts {
  readonly clock: Clock;
  readonly log: Log;
  readonly flows: FlowTaker;
  readonly messenger: Pick<Messenger, "send">;
  readonly messages: Pick<MessageServer, "listen">;
  readonly member: Pick<MemberRecord, "name" | "id">;
  readonly members: Pick<Members, "find" | "fellows" | "held" | "run">;
  readonly node: Pick<TargetNode, "depart" | "endsOf" | "adopt" | "sendAway">;
  readonly draining: () => boolean;
  /** Whether the stop is for a new start of the process, so that connections that it passes on shall outlive it. */
  readonly forRestart: () => boolean;
  /** For the next process; null: there is none of this machine. */
  readonly handedOverFile: PrivateFile | null;
  readonly logoutSeconds: number;
}

const retryMs = 200;

export class SessionMoves {
  readonly #parts: SessionMovesParts;
  readonly #steering: Steering;
  readonly #takeovers: Takeovers;
  readonly #mover: SessionMover;
  readonly #restart: EntryRestart;

  constructor(parts: SessionMovesParts) {
    this.#parts = parts;
    const { clock, log, flows, messenger, messages, member, members, node } = parts;
    const common = {
      clock,
      log,
      flows,
      messenger,
      self: member.name,
      run: () => members.run,
      runOf: (name: string) => members.find(name)?.run ?? null,
      addressOf: (name: string) => this.#addressOf(name),
    };
    const steering = this.#steering = new Steering(common);
    const takeovers = this.#takeovers = new Takeovers({
      ...common,
      steering,
      adopt: (...session) => node.adopt(...session),
      mayServe: () => members.held() && !parts.draining(),
      sendAway: (session, reason) => void node.sendAway(session, parts.logoutSeconds, reason),
      stateOf: (name) => members.find(name)?.state ?? null,
    });
    this.#mover = new SessionMover({
      ...common,
      steering,
      takeovers,
      depart: (...session) => node.depart(...session),
      endsOf: (id) => node.endsOf(id),
    });
    this.#restart = new EntryRestart({ ...common, steering });
    messages.listen(MessageKind.moveHeld, takeovers.heldCame);
    messages.listen(MessageKind.moveTake, takeovers.takeCame);
    messages.listen(MessageKind.moveEnd, takeovers.endCame);
    messages.listen(MessageKind.moveKeep, takeovers.keepCame);
    messages.listen(MessageKind.moveResume, takeovers.resumeCame);
    messages.listen(MessageKind.moveSteer, steering.heard);
  }

  /** Never rejects. */
  move(id: number, to: string): Promise<MoveOutcome> {
    return new Promise((resolve) => this.#mover.move(id, to, resolve));
  }

  /** See TargetNodeParts. */
  whenFree(
    { initiatorName, isid, target }: Pick<LoginQuestion, "initiatorName" | "isid" | "target">,
    then: () => void,
  ): void {
    this.#steering.whenFree({ initiatorName, isid, targetName: target.name }, then);
  }

  /**
   * The member stops: resolves when the initiators of sessions elsewhere, whose packets it passes on, have logged out, as their
   * owners ask them to; after the time that its own initiators are given at the latest.
   */
  async sentAway(): Promise<void> {
    const { clock } = this.#parts;
    const untilMs = clock.nowMs() + limits.stopCloseTimeMs;
    while (this.#steering.steered > 0 && clock.nowMs() < untilMs) {
      await new Promise<void>((resolve) => clock.after(retryMs, resolve));
    }
  }

  fellowsChanged(): void {
    this.#steering.fellowsChanged();
    this.#takeovers.fellowsChanged();
  }

  /**
   * Before a stop that is for a restart, while the others do not know of it yet: sessions elsewhere, whose packets this member
   * passes on, are kept for the next process. Resolves to how many; the others end with this one. Never rejects.
   */
  async handOver(): Promise<number> {
    const { forRestart, handedOverFile: file, flows, member, members, log } = this.#parts;
    if (!forRestart() || file === null) return 0;
    const promised = await new Promise<SteeredFlow[]>((resolve) => this.#restart.keep(resolve));
    const kept = promised.filter(({ owner }) => this.#addressOf(owner) !== null);
    if (kept.length === 0) return 0;
    try {
      flows.keep(
        member.id,
        kept.map(({ state: { client, portal }, owner }) => ({
          client,
          portal,
          owner: this.#addressOf(owner)!,
        })),
        limits.restartKeepMs,
      );
      await file.remove().catch(() => {}); // there is none, mostly
      if (!await file.make(formatHandedOver({ run: members.run, flows: kept }))) {
        throw new Error("it is there");
      }
    } catch (error) {
      log.warn("connections end with this process: they cannot be handed over to the next one", {
        file: file.path,
        reason: (error as Error).message,
      });
      this.#keepNoMore();
      this.#restart.keepNot(kept);
      return 0;
    }
    for (const { state } of kept) this.#steering.handedOver(state);
    return kept.length;
  }

  /** Before the first login: goes on with what the last process has handed over. Never rejects. */
  async resume(): Promise<void> {
    const { handedOverFile: file, member, log } = this.#parts;
    const left = file === null ? null : await takeHandedOver(file, log);
    if (left === null) return this.#keepNoMore();
    const resumed = new Promise<number>((resolve) =>
      this.#restart.resume(member.id, left.run, left.flows, resolve)
    );
    log.info("connections of other members' sessions are passed on again", {
      resumed: await resumed,
      handedOver: left.flows.length,
    });
  }

  #keepNoMore(): void {
    const { flows, member, log } = this.#parts;
    try {
      flows.keepNoMore(member.id);
    } catch (error) {
      log.warn("a table of the packet filter stays until its time is over", {
        reason: (error as Error).message,
      });
    }
  }

  #addressOf(name: string): string | null {
    const live = this.#parts.members.find(name);
    const parsed = live === null ? null : parseAddress(live.peer);
    return parsed?.kind === "address" ? parsed.address.hostname : null;
  }
}
