// A member that is emptied so that its process can be started anew (`member drain NAME --restart`): its clients go to other
// members, with their connections where that can be had, since its kernel goes on passing those on while the process is away.
// Its pages stay.

import type { Clock } from "../../base/clock.ts";
import type { Log } from "../../base/log.ts";
import type { BalanceConfig } from "../../config/config.ts";
import type { MemberRecord } from "../../meta/records.ts";
import type { ClientMoves } from "./client_moves.ts";
import type { Drains } from "./drains.ts";
import type { GroupPicture } from "./group_picture.ts";
import type { MeteredSession } from "./load_meter.ts";
import type { Members } from "./members.ts";

/** So often a connection is tried to be moved before its initiator is asked to log out, and so long apart, milliseconds. */
const liveTriesMax = 3;
const retryMs = 2_000;
/** A client that nothing can be done about is looked at again after this, milliseconds. */
const stuckMs = 30_000;

export interface RestartDrainParts {
  readonly clock: Clock;
  readonly log: Log;
  readonly settings: Pick<BalanceConfig, "movesMax">;
  readonly member: Pick<MemberRecord, "name">;
  readonly members: Pick<Members, "fellows">;
  readonly drains: Pick<Drains, "ready">;
}

interface Tried {
  count: number;
  notBeforeMs: number;
  /** All that could be tried has been. */
  stuck: boolean;
}

export class RestartDrain {
  readonly #parts: RestartDrainParts;
  readonly #picture: GroupPicture;
  readonly #clients: ClientMoves;
  readonly #tried = new Map<number, Tried>();

  constructor(parts: RestartDrainParts, picture: GroupPicture, clients: ClientMoves) {
    this.#parts = parts;
    this.#picture = picture;
    this.#clients = clients;
  }

  /** The next few moves; to be called about once a second. */
  goOn(): void {
    const { clock, settings } = this.#parts;
    const now = clock.nowMs();
    const sessions = this.#picture.meter.sessions().filter((s) => !this.#picture.choosesItself(s.initiator));
    for (const id of [...this.#tried.keys()]) if (!sessions.some((s) => s.id === id)) this.#tried.delete(id);
    let room = settings.movesMax - this.#clients.underWay;
    let staying = 0;
    let going = 0;
    for (const session of sessions) {
      const tried = this.#tried.get(session.id);
      if (this.#clients.isLeaving(session.id) || tried?.stuck !== true) going++;
      else staying++;
      if (room <= 0 || this.#clients.isLeaving(session.id) || (tried?.notBeforeMs ?? 0) > now) continue;
      room--;
      this.#send(session);
    }
    if (going === 0) this.#ready(staying);
  }

  #send(session: MeteredSession): void {
    const { clock, log } = this.#parts;
    const tried = this.#tried.get(session.id) ?? { count: 0, notBeforeMs: 0, stuck: false };
    this.#tried.set(session.id, tried);
    const to = this.#destination(session);
    tried.count++;
    if (to === null) return this.#failed(session, tried, "no other member is heard of that takes clients");
    const connection = this.#picture.connection(session);
    const unreachable = connection.reachable.has(to.tag)
      ? null
      : `no portal of ${to.name} is in reach of a client that came to ${session.portal}`;
    const noLogout = tried.count < liveTriesMax ? "it is tried again" : connection.pinned ?? unreachable;
    void this.#clients.move({
      session,
      to,
      purpose: "drain",
      reason: "the member is to be started anew",
      live: true,
      noLogout,
    }).then((moved) => {
      if (moved.kind === "stays") {
        this.#failed(session, tried, [moved.reason, moved.because].filter((s) => s !== null).join("; "));
      } else if (moved.kind === "reset") {
        log.warn("a client whose connection was to move was reset, and logs in again", {
          session: session.id,
          because: moved.reason,
        });
      } else {
        tried.notBeforeMs = clock.nowMs() + stuckMs; // it is on its way
      }
    });
  }

  #failed({ id, initiator }: MeteredSession, tried: Tried, because: string): void {
    const { clock, log } = this.#parts;
    const over = tried.count >= liveTriesMax;
    if (over && !tried.stuck) log.warn("a client stays at the member", { session: id, initiator, because });
    tried.stuck = over;
    tried.notBeforeMs = clock.nowMs() + (over ? stuckMs : retryMs);
  }

  /** The member whose portal the client came to, if that is another one; else where no path of it is, with the least to do. */
  #destination({ portal, client, image }: MeteredSession): { name: string; tag: number } | null {
    const { members } = this.#parts;
    const entry = members.fellows().find(({ live }) => live?.portals.includes(portal) === true)?.record.name;
    const open = this.#picture.members().slice(1)
      .filter(({ load, sessionsMax }) => !load.draining && load.sessions + load.expected < sessionsMax);
    const pathsAt = (clients: (typeof open)[number]["load"]["clients"]) =>
      clients.some((c) => c.client === client && c.image === image && c.sessions > 0) ? 1 : 0;
    const [best] = open.toSorted((a, b) =>
      Number(b.name === entry) - Number(a.name === entry) ||
      pathsAt(a.load.clients) - pathsAt(b.load.clients) || a.load.work - b.load.work
    );
    return best === undefined ? null : { name: best.name, tag: best.load.tag };
  }

  #ready(staying: number): void {
    const { drains, member, log } = this.#parts;
    drains.ready(member.name, staying).catch((error: Error) => {
      log.debug("cannot tell that the member is ready to be started anew", { reason: error.message }); // next time
    });
  }
}
