// The load of this member, measured once a second from counters that are kept anyway (those of other threads included):
// rates of every session, where its commands were carried out, and what the whole member does.

import type { Machine } from "../../base/machine.ts";
import { AccessHistory } from "../../balance/history.ts";
import { clientKey, type ClientLoad, type MemberTag, workOf } from "../../balance/view.ts";
import { limits } from "../../base/limits.ts";
import type { SessionInfo } from "../../session/target_node.ts";

/** A session of a volume with what was measured of it. */
export interface MeteredSession {
  readonly id: number;
  readonly initiator: string;
  readonly isid: number;
  readonly portal: string;
  readonly client: string;
  readonly image: number;
  readonly bornMs: number;
  commandsPerS: number;
  readBytesPerS: number;
  writtenBytesPerS: number;
  /** In flight. */
  queue: number;
  /** What it was said to bring, until it has been measured for long enough. */
  charge: number;
  /** How often it has been moved lately. */
  moves: number;
  commands: number;
  read: number;
  written: number;
  forwarded: number;
}

/** What of a session's target the meter needs. */
export interface MeteredTarget {
  readonly image: number;
  /** Commands of the session that went to other members, and where the last `count` of them lie. */
  forwarded(session: number): number;
  tagsOf(session: number, count: number): readonly MemberTag[];
}

/** Rates follow a change in this time, milliseconds. */
const rateMs = 3_000;
/** A session's charge counts for so long after its login. */
const chargeMs = 3 * rateMs;

export class LoadMeter {
  readonly history = new AccessHistory();
  readonly #sessions = new Map<number, MeteredSession>();
  #lastMs: number;
  #lastCpuMs: number;
  cpu = 0;

  constructor(private readonly own: MemberTag, private readonly machine: Machine, nowMs: number) {
    this.#lastMs = nowMs;
    this.#lastCpuMs = machine.cpuMs();
  }

  sessions(): readonly MeteredSession[] {
    return [...this.#sessions.values()];
  }

  find(id: number): MeteredSession | null {
    return this.#sessions.get(id) ?? null;
  }

  /** `arrived`: what was told of a session that is seen for the first time. */
  measure(
    sessions: Iterable<SessionInfo>,
    target: (name: string) => MeteredTarget | null,
    arrived: (session: MeteredSession) => { readonly work: number; readonly moves: number } | null,
    nowMs: number,
  ): void {
    const elapsedMs = nowMs - this.#lastMs;
    if (elapsedMs <= 0) return;
    const share = 1 - Math.exp(-elapsedMs / rateMs);
    const cpuMs = this.machine.cpuMs();
    this.cpu = Math.min(1, Math.max(0, (cpuMs - this.#lastCpuMs) / elapsedMs / this.machine.cores));
    this.#lastCpuMs = cpuMs;
    this.#lastMs = nowMs;
    this.see(sessions, target, arrived, nowMs, (session, info, metered) => {
      this.#follow(session, info, metered, elapsedMs, share, nowMs);
    });
  }

  /** Notes who has come and gone; `each` gets all that are there. */
  see(
    sessions: Iterable<SessionInfo>,
    target: (name: string) => MeteredTarget | null,
    arrived: (session: MeteredSession) => { readonly work: number; readonly moves: number } | null,
    nowMs: number,
    each: (session: MeteredSession, info: SessionInfo, target: MeteredTarget) => void = () => {},
  ): void {
    const seen = new Set<number>();
    const targets = new Map<string, MeteredTarget | null>();
    for (const info of sessions) {
      if (info.target === null) continue;
      if (!targets.has(info.target)) targets.set(info.target, target(info.target));
      const metered = targets.get(info.target) ?? null;
      if (metered === null) continue;
      seen.add(info.id);
      let session = this.#sessions.get(info.id);
      if (session === undefined) {
        session = begin(info, metered.image, nowMs);
        const told = arrived(session);
        session.charge = told?.work ?? 0;
        session.moves = told?.moves ?? 0;
        this.#sessions.set(info.id, session);
      }
      each(session, info, metered);
    }
    for (const id of [...this.#sessions.keys()]) if (!seen.has(id)) this.#sessions.delete(id);
  }

  /** What the session counts for: what was measured, or what it was said to bring while that is young. */
  work(session: MeteredSession, nowMs: number): number {
    const { commandsPerS, readBytesPerS, writtenBytesPerS, charge, bornMs } = session;
    const measured = workOf(commandsPerS, readBytesPerS + writtenBytesPerS);
    return nowMs - bornMs < chargeMs ? Math.max(measured, charge) : measured;
  }

  /** Clients with sessions, and after them those of the past. */
  clients(nowMs: number): ClientLoad[] {
    const out = new Map<string, { client: string; image: number; sessions: number; work: number }>();
    for (const session of this.#sessions.values()) {
      const { client, image } = session;
      const key = `${client}/${image}`;
      const one = out.get(key) ?? { client, image, sessions: 0, work: 0 };
      one.sessions++;
      one.work += this.work(session, nowMs);
      out.set(key, one);
    }
    for (const { client, image } of this.history.last(limits.reportClientsMax)) {
      const key = `${client}/${image}`;
      if (!out.has(key)) out.set(key, { client, image, sessions: 0, work: 0 });
    }
    return [...out.values()].slice(0, limits.reportClientsMax)
      .map((one) => ({ ...one, served: this.history.long(one.client, one.image) }));
  }

  #follow(
    session: MeteredSession,
    info: SessionInfo,
    target: MeteredTarget,
    elapsedMs: number,
    share: number,
    nowMs: number,
  ): void {
    const commands = Math.max(0, info.commands - session.commands);
    const follow = (rate: number, delta: number) => rate + share * (delta * 1000 / elapsedMs - rate);
    session.commandsPerS = follow(session.commandsPerS, commands);
    session.readBytesPerS = follow(session.readBytesPerS, info.bytesRead - session.read);
    session.writtenBytesPerS = follow(session.writtenBytesPerS, info.bytesWritten - session.written);
    session.queue += share * (info.commandsInFlight - session.queue);
    session.commands = info.commands;
    session.read = info.bytesRead;
    session.written = info.bytesWritten;
    const forwarded = target.forwarded(info.id);
    const away = Math.min(commands, Math.max(0, forwarded - session.forwarded));
    session.forwarded = forwarded;
    const counts = new Map([[this.own, commands - away]]);
    const tags = away === 0 ? [] : target.tagsOf(info.id, away);
    for (const tag of tags) counts.set(tag, (counts.get(tag) ?? 0) + away / tags.length);
    this.history.note(session.client, session.image, counts, nowMs);
  }
}

function begin(info: SessionInfo, image: number, nowMs: number): MeteredSession {
  const { id, initiator, isid, portal, commands, bytesRead, bytesWritten } = info;
  return {
    id,
    initiator,
    isid,
    portal,
    client: clientKey(initiator),
    image,
    bornMs: nowMs,
    commandsPerS: 0,
    readBytesPerS: 0,
    writtenBytesPerS: 0,
    queue: 0,
    charge: 0,
    moves: 0,
    commands,
    read: bytesRead,
    written: bytesWritten,
    forwarded: 0,
  };
}
