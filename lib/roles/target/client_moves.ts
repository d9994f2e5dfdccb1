// How a client of this member gets to another one: with its connection, of which it notices nothing (docs/short-cut.md, "The
// whole connection"), or by a logout that it is asked for. Either way the destination is asked first.

import type { Clock } from "../../base/clock.ts";
import type { Log } from "../../base/log.ts";
import type { Machine } from "../../base/machine.ts";
import { encodeIntent, type Intent, type IntentPurpose, refusalWords } from "../../balance/intents.ts";
import { dwellOf } from "../../balance/score.ts";
import type { MemberTag } from "../../balance/view.ts";
import { parseAddress } from "../../config/address.ts";
import type { BalanceConfig } from "../../config/config.ts";
import type { MessageOutcome } from "../../forward/mod.ts";
import type { TargetNode } from "../../session/target_node.ts";
import { MessageKind } from "../../wire/scsi/member_message.ts";
import type { Forwarding } from "./forwarding.ts";
import type { GroupPicture } from "./group_picture.ts";
import type { MeteredSession } from "./load_meter.ts";
import type { Members } from "./members.ts";
import type { SessionMoves } from "./session_moves.ts";

/** How long a login that was sent elsewhere is expected there, milliseconds; of a move, beside the time to log out. */
export const loginExpectedMs = 30_000;
/** A message that decides where a client belongs must be answered soon. */
const answerMs = 1_500;
/** Of what a portal's interface can take, data written by one client; above, the client is better off at another portal. */
const writtenShareMax = 0.1;

export interface ClientMovesParts {
  readonly clock: Clock;
  readonly log: Log;
  readonly machine: Pick<Machine, "linkMbps">;
  readonly settings: BalanceConfig;
  readonly members: Pick<Members, "fellows">;
  readonly node: Pick<TargetNode, "sendAway">;
  readonly forwarding: Pick<Forwarding, "messenger">;
  /** Null: sessions move without their connections. */
  readonly moves: Pick<SessionMoves, "move"> | null;
}

type Picture =
  & Pick<GroupPicture, "own" | "nameOf" | "ownLoad" | "intents">
  & {
    readonly meter: Pick<GroupPicture["meter"], "work">;
    readonly board: Pick<GroupPicture["board"], "sent">;
  };

export interface MoveWish {
  readonly session: MeteredSession;
  readonly to: { readonly name: string; readonly tag: MemberTag };
  readonly purpose: IntentPurpose;
  /** For the log. */
  readonly reason: string;
  /** Whether its connection is to go along if it can. */
  readonly live: boolean;
  /** Why its initiator may not be asked to log out; null: it may. */
  readonly noLogout: string | null;
}

export type ClientMove =
  | { readonly kind: "live"; readonly pauseMs: number }
  /** Its initiator is asked to log out; `because`: why the connection could not go along, null if that was not wanted. */
  | { readonly kind: "logout"; readonly because: string | null }
  | { readonly kind: "stays"; readonly reason: string; readonly because: string | null }
  /** Its connection had to be reset, and its initiator logs in again. */
  | { readonly kind: "reset"; readonly reason: string };

export class ClientMoves {
  readonly #parts: ClientMovesParts;
  readonly #picture: Picture;
  /** Sessions that go: until when the next move waits for them. */
  readonly #leaving = new Map<number, number>();
  #count = 0;

  constructor(parts: ClientMovesParts, picture: Picture) {
    this.#parts = parts;
    this.#picture = picture;
  }

  /** Moves that have begun since the start of this member. */
  get count(): number {
    return this.#count;
  }

  /** Moves whose effect cannot be measured yet. */
  get underWay(): number {
    const now = this.#parts.clock.nowMs();
    for (const [id, untilMs] of this.#leaving) if (untilMs <= now) this.#leaving.delete(id);
    return this.#leaving.size;
  }

  isLeaving(session: number): boolean {
    return this.#leaving.has(session);
  }

  /**
   * Whether it is worth the connection to go along when load is spread: what its client writes goes on coming in through its
   * portal's interface, and from there to the other member.
   */
  suitsLive({ portal, writtenBytesPerS }: MeteredSession): boolean {
    const parsed = parseAddress(portal);
    const mbps = parsed.kind === "address" ? this.#parts.machine.linkMbps(parsed.address.hostname) : 0;
    return mbps === 0 || writtenBytesPerS * 8 / 1e6 <= mbps * writtenShareMax;
  }

  /** Never rejects. */
  async move(wish: MoveWish): Promise<ClientMove> {
    const { clock, moves, log } = this.#parts;
    const { session, to, live, noLogout, reason } = wish;
    if (!live && noLogout !== null) return { kind: "stays", reason: noLogout, because: null };
    const intent = this.#intentOf(wish);
    this.#leaving.set(session.id, clock.nowMs() + intent.timeMs);
    const consent = await this.ask(intent, to.tag);
    if (consent.kind !== "taken") return this.#stays(session, wordsOf(consent), null);
    const moved = !live
      ? null
      : moves === null
      ? { kind: "stays" as const, reason: noFlows }
      : await moves.move(session.id, to.name);
    if (moved?.kind === "moved") {
      const { pauseMs } = moved;
      this.#begun(session, to.tag, 0);
      log.info("a session has moved with its connection", {
        session: session.id,
        initiator: session.initiator,
        to: to.name,
        reason,
        pauseMs: Math.round(pauseMs * 10) / 10,
      });
      return { kind: "live", pauseMs };
    }
    if (moved?.kind === "reset") {
      this.#leaving.delete(session.id);
      return { kind: "reset", reason: moved.reason };
    }
    const because = moved?.reason ?? null;
    if (noLogout !== null) {
      this.#send({ ...intent, to: this.#picture.own, timeMs: 0 }, to.tag, () => {}); // it is not to wait for it
      return this.#stays(session, noLogout, because);
    }
    return await this.#askToLeave(wish, intent, because);
  }

  /** Tells everybody where the client belongs from now on, then asks it to leave. */
  async #askToLeave(
    { session, to, reason }: MoveWish,
    intent: Intent,
    because: string | null,
  ): Promise<ClientMove> {
    const { clock, settings, node, log, members } = this.#parts;
    const rest = members.fellows().filter(({ record, live }) =>
      live !== null && record.targetPortalGroupTag !== to.tag
    );
    await Promise.all(rest.map(({ record }) => this.ask(intent, record.targetPortalGroupTag)));
    this.#picture.intents.note(intent, clock.nowMs());
    if (!node.sendAway(session.id, settings.logoutSeconds, reason)) {
      return this.#stays(session, "the session has ended", because);
    }
    this.#begun(session, to.tag, settings.logoutSeconds * 1000);
    log.info("a client is asked to go to another member", {
      session: session.id,
      initiator: session.initiator,
      to: to.name,
      reason,
      ...(because === null ? {} : { notLive: because }),
    });
    return { kind: "logout", because };
  }

  #stays({ id }: MeteredSession, reason: string, because: string | null): ClientMove {
    this.#leaving.delete(id);
    return { kind: "stays", reason, because };
  }

  /** The next decision waits until the loads show what this one did. */
  #begun({ id }: MeteredSession, to: MemberTag, leavesMs: number): void {
    const { clock, settings } = this.#parts;
    this.#count++;
    this.#picture.board.sent(to);
    this.#leaving.set(id, clock.nowMs() + leavesMs + 4 * settings.reportMs);
  }

  #intentOf({ session, to, purpose }: MoveWish): Intent {
    const { clock, settings } = this.#parts;
    const now = clock.nowMs();
    const work = this.#picture.meter.work(session, now);
    const calm = now - session.bornMs > 2 * dwellOf(session, settings);
    return {
      initiator: session.initiator,
      isid: session.isid,
      image: session.image,
      purpose,
      to: to.tag,
      timeMs: settings.logoutSeconds * 1000 + loginExpectedMs,
      work,
      senderWorkAfter: Math.max(0, this.#picture.ownLoad().work - work),
      moves: calm ? 1 : session.moves + 1,
    };
  }

  /** Asks a member, or tells it, where an initiator port belongs. */
  ask(intent: Intent, tag: MemberTag): Promise<MessageOutcome> {
    return new Promise((resolve) => this.#send(intent, tag, resolve));
  }

  #send(intent: Intent, tag: MemberTag, told: (outcome: MessageOutcome) => void): void {
    const body = encodeIntent(intent);
    this.#parts.forwarding.messenger.send(
      this.#picture.nameOf(tag),
      MessageKind.intent,
      body,
      answerMs,
      told,
    );
  }
}

const noFlows = "this member cannot hand connections over (plimsoll doctor says what is missing)";

export function wordsOf(outcome: MessageOutcome): string {
  if (outcome.kind === "taken") return "it agrees";
  if (outcome.kind === "lost") return `the member could not be asked (${outcome.reason})`;
  return refusalWords[outcome.reason] ?? `the member refuses (${outcome.reason})`;
}
