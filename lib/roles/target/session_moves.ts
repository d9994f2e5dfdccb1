// Sessions that move between members with their connections (docs/short-cut.md, "The whole connection"), as this member takes
// part: as the one that gives, the one that takes, and the one whose portal it is.

import type { Clock } from "../../base/clock.ts";
import type { FlowTaker } from "../../base/flow.ts";
import { limits } from "../../base/limits.ts";
import type { Log } from "../../base/log.ts";
import { parseAddress } from "../../config/address.ts";
import type { MessageServer, Messenger } from "../../forward/mod.ts";
import type { LoginQuestion, TargetNode } from "../../session/target_node.ts";
import { everyFlow, type MoveOutcome, SessionMover, Steering, Takeovers } from "../../shortcut/mod.ts";
import { MessageKind, MessageRefusal } from "../../wire/scsi/member_message.ts";
import { encodeFlow } from "../../wire/scsi/session_move.ts";
import type { Members } from "./members.ts";

export interface SessionMovesParts {
  readonly clock: Clock;
  readonly log: Log;
  readonly flows: FlowTaker;
  readonly messenger: Pick<Messenger, "send">;
  readonly messages: Pick<MessageServer, "listen">;
  readonly member: string;
  readonly members: Pick<Members, "find" | "fellows" | "held" | "run">;
  readonly node: Pick<TargetNode, "depart" | "endsOf" | "adopt" | "sendAway">;
  readonly draining: () => boolean;
  readonly logoutSeconds: number;
}

const retryMs = 200;
const noLoginsYet =
  "no logins yet: a member that is up has not said that it has no session left of this member's last run; " +
  "see that the two can reach each other";

export class SessionMoves {
  readonly #parts: SessionMovesParts;
  readonly #steering: Steering;
  readonly #takeovers: Takeovers;
  readonly #mover: SessionMover;

  constructor(parts: SessionMovesParts) {
    this.#parts = parts;
    const { clock, log, flows, messenger, messages, member, members, node } = parts;
    const common = {
      clock,
      log,
      flows,
      messenger,
      self: member,
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
      stops: (name) => members.find(name)?.state === "draining",
    });
    this.#mover = new SessionMover({
      ...common,
      steering,
      takeovers,
      depart: (...session) => node.depart(...session),
      endsOf: (id) => node.endsOf(id),
    });
    messages.listen(MessageKind.moveHeld, takeovers.heldCame);
    messages.listen(MessageKind.moveTake, takeovers.takeCame);
    messages.listen(MessageKind.moveEnd, takeovers.endCame);
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
   * Before the first login: resolves when no member that serves has a session left that came by this member's portals, to a
   * process that is no more. One that is starting too has none.
   */
  async claimPortals(): Promise<void> {
    const { members } = this.#parts;
    const serving = members.fellows().filter(({ live }) => live !== null && live.state !== "joining");
    await Promise.all(serving.map(({ record, live }) => this.#claimFrom(record.name, live!.run)));
  }

  #claimFrom(member: string, run: string): Promise<void> {
    const { messenger, members, clock, log } = this.#parts;
    const body = encodeFlow({ ...everyFlow, text: members.run });
    let told = false;
    return new Promise((resolve) => {
      const ask = () => {
        if (members.find(member)?.run !== run) return resolve(); // with it they have gone
        messenger.send(member, MessageKind.moveEnd, body, limits.moveMessageMs, (outcome) => {
          // A member without the means has no such sessions.
          const none = outcome.kind === "refused" && outcome.reason === MessageRefusal.unknownKind;
          if (outcome.kind === "taken" || none) return resolve();
          if (!told) log.warn(noLoginsYet, { member });
          told = true;
          clock.after(retryMs, ask);
        });
      };
      ask();
    });
  }

  #addressOf(name: string): string | null {
    const live = this.#parts.members.find(name);
    const parsed = live === null ? null : parseAddress(live.peer);
    return parsed?.kind === "address" ? parsed.address.hostname : null;
  }
}
