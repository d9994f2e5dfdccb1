// Block operations of one volume over an initiator-proxy's paths: to the page's home first, over the path with the fewest
// commands in flight, to other members when the home cannot be reached. A member carries on what is not its own, so a
// choice that was wrong costs time and nothing else.
//
// What was with a session that is lost: a read is done again at once, elsewhere. A change of data is done again only once
// the first instance is known dead (home_link.ts has the same rule): when the path has logged in again, which ends the
// tasks of the session before, or when the member's process is known to have ended. Until then it is held.

import { assert } from "../base/assert.ts";
import type { Timer } from "../base/clock.ts";
import { limits } from "../base/limits.ts";
import type { BlockOperation, BlockOutcome, BlockService } from "../extent/operation.ts";
import { changesData, dataInBytes, dataOutBytes } from "./envelope.ts";
import { Path, type PathOwner, type PathParts, type PathPlace } from "./path.ts";
import { VolumeCommand } from "./volume_command.ts";

export interface PathForwarderParts extends PathParts {
  readonly pageBytes: () => number;
  /** The member that is the page's home; null: not known, or not asked for. */
  readonly homeOf: (page: number) => string | null;
  /** Is a process of this start of the member still alive, as far as is known? True when nothing is known. */
  readonly mayLive: (member: string, run: string) => boolean;
  readonly opened: (path: Path) => void;
  readonly left: (path: Path) => void;
  readonly told: (path: Path, kind: number) => void;
  /** A unit attention came: ASC and ASCQ. */
  readonly attention: (code: number) => void;
  readonly holdMs?: number;
  readonly graceMs?: number;
}

/** Looks whether somebody has waited long enough. */
const tickMs = 100;
/** Times that one operation is sent: unit attentions of every path and a lost session each are far fewer. */
const attemptsMax = 32;

export class PathForwarder implements BlockService, PathOwner {
  readonly #parts: PathForwarderParts;
  readonly #holdMs: number;
  readonly #graceMs: number;
  #paths: Path[] = [];
  /** Of plans before, with something that is not known dead. */
  readonly #retired = new Set<Path>();
  readonly #free: VolumeCommand[] = [];
  readonly #waiting = new Set<VolumeCommand>();
  readonly #unknown = new Set<VolumeCommand>();
  #heldBytes = 0;
  #awaySinceMs: number;
  #tick: Timer | null = null;
  #closed = false;
  /** For choosing among equals. */
  #turn = 0;
  #strange = "";

  constructor(parts: PathForwarderParts) {
    this.#parts = parts;
    this.#holdMs = parts.holdMs ?? limits.forwardHoldMs;
    this.#graceMs = parts.graceMs ?? limits.forwardGraceMs;
    this.#awaySinceMs = parts.clock.nowMs();
  }

  get paths(): readonly Path[] {
    return this.#paths;
  }

  /** Operations that wait for a path, or for the end of a member that may still be at them. */
  get held(): number {
    return this.#waiting.size + this.#unknown.size;
  }

  anyOpen(): Path | null {
    return this.#paths.find((path) => path.open) ?? null;
  }

  /** Makes the paths of a new plan, keeps those that stay, and ends the others when nothing is left of them. */
  setPlaces(places: readonly PathPlace[]): void {
    if (this.#closed) return;
    const before = this.#paths;
    this.#paths = places.map((place) => {
      const same = before.find((path) =>
        path.place.member === place.member && path.place.initiatorPort === place.initiatorPort
      );
      if (same !== undefined) {
        same.place = place;
        return same;
      }
      return new Path(place, this.#parts, this);
    });
    for (const path of before) if (!this.#paths.includes(path)) this.#retired.add(path);
    for (const path of this.#paths) path.start();
    this.settle();
    this.#endRetired();
    if (this.anyOpen() !== null) this.#pump();
  }

  /** Looks at what the members are now: a process that has ended carries nothing out any more. */
  settle(): void {
    for (const command of [...this.#unknown]) {
      const path = command.path!;
      const dead = path.logins > command.login || !this.#parts.mayLive(path.place.member, path.run);
      if (!dead) continue;
      this.#unknown.delete(command);
      // The same data again changes nothing, but a comparison would see its own write.
      if (command.operation.kind === "compareAndWrite") this.#end(command, "interrupted");
      else this.#again(command);
    }
  }

  close(): void {
    this.#closed = true;
    this.#tick?.cancel();
    for (const command of [...this.#waiting]) this.#end(command, "notReady");
    for (const command of [...this.#unknown]) this.#end(command, "interrupted");
    for (const path of [...this.#paths, ...this.#retired]) path.close("the proxy stops");
  }

  // BlockService

  submit(operation: BlockOperation): void {
    if (operation.kind === "prefetch") { // a hint, and there is no cache here
      operation.outcome = "done";
      return operation.done(operation);
    }
    const command = this.#free.pop() ?? new VolumeCommand((c) => c.path!.done(c));
    command.operation = operation;
    command.sinceMs = this.#parts.clock.nowMs();
    command.attempts = 0;
    command.cancelled = false;
    operation.ticket = command;
    this.#heldBytes += heldBytesOf(operation);
    this.#send(command);
  }

  cancel(operation: BlockOperation): void {
    const command = operation.ticket as VolumeCommand;
    if (command.cancelled) return;
    command.cancelled = true;
    if (command.state === "waiting") return this.#end(command, "busy");
    if (command.state === "sent") command.path!.abort(command);
  }

  // PathOwner

  loggedIn(_path: Path): void {
    this.settle();
    this.#endRetired();
  }

  opened(path: Path): void {
    this.#awaySinceMs = -1;
    this.#parts.opened(path);
    this.#pump();
  }

  left(path: Path): void {
    if (this.anyOpen() === null && this.#awaySinceMs < 0) this.#awaySinceMs = this.#parts.clock.nowMs();
    this.#parts.left(path);
    this.#watch();
  }

  told(path: Path, kind: number): void {
    this.#parts.told(path, kind);
  }

  ended(path: Path, command: VolumeCommand): void {
    switch (command.command.outcome) {
      case "completed":
        this.#answered(command);
        break;
      case "aborted":
        this.#end(command, "busy");
        break;
      case "lost":
        this.#lost(command);
        break;
      case "notSent":
      case "rejected":
        this.#again(command);
        break;
    }
    if (this.#retired.has(path)) this.#endRetired();
  }

  #answered(command: VolumeCommand): void {
    const answer = command.takeAnswer();
    switch (answer.kind) {
      case "ended":
        return this.#end(command, command.operation.outcome);
      case "attention":
        this.#parts.attention(answer.code);
        return this.#again(command);
      case "again":
        return this.#again(command);
      case "strange":
        if (this.#strange !== answer.reason) {
          this.#strange = answer.reason;
          this.#parts.log.error("a member answers what a proxy does not understand", {
            member: command.path!.place.member,
            reason: answer.reason,
          });
        }
        return this.#end(command, "interrupted");
    }
  }

  #lost(command: VolumeCommand): void {
    if (!changesData(command.operation.kind)) return this.#again(command);
    if (this.#closed) return this.#end(command, "interrupted");
    command.state = "unknown";
    this.#unknown.add(command);
    this.settle(); // the stream may have given its data back late
    this.#watch();
  }

  #again(command: VolumeCommand): void {
    if (command.cancelled || command.attempts >= attemptsMax) return this.#end(command, "busy");
    if (this.#closed) return this.#end(command, "notReady");
    this.#send(command);
  }

  #send(command: VolumeCommand): void {
    const path = this.#choose(command.operation);
    if (path === null) return this.#wait(command);
    command.attempts++;
    command.load(this.#parts.pageBytes());
    path.submit(command);
  }

  /** The home's path with the fewest commands in flight; any member's when the home has none that is open. */
  #choose(operation: BlockOperation): Path | null {
    const home = operation.kind === "flush" ? null : this.#parts.homeOf(operation.page);
    let best: Path | null = null;
    let bestHome = false;
    const count = this.#paths.length;
    this.#turn = (this.#turn + 1) % Math.max(1, count);
    for (let i = 0; i < count; i++) {
      const path = this.#paths[(i + this.#turn) % count]!;
      if (!path.open) continue;
      const isHome = home !== null && path.place.member === home;
      if (best !== null && bestHome && !isHome) continue;
      if (best !== null && bestHome === isHome && best.inFlight <= path.inFlight) continue;
      best = path;
      bestHome = isHome;
    }
    return best;
  }

  #wait(command: VolumeCommand): void {
    command.state = "waiting";
    this.#waiting.add(command);
    if (this.#closed || this.#graceOver) return this.#end(command, "notReady");
    const own = heldBytesOf(command.operation);
    if (this.#heldBytes > limits.forwardAwayBytesMax && this.#heldBytes > own) {
      return this.#end(command, "busy");
    }
    this.#watch();
  }

  #pump(): void {
    for (const command of [...this.#waiting]) {
      if (this.anyOpen() === null) return;
      if (!this.#waiting.delete(command)) continue;
      this.#send(command);
    }
  }

  #end(command: VolumeCommand, outcome: BlockOutcome): void {
    this.#waiting.delete(command);
    this.#unknown.delete(command);
    this.#heldBytes -= heldBytesOf(command.operation);
    assert(this.#heldBytes >= 0, "an operation of a proxy ended twice");
    command.end(outcome);
    this.#free.push(command);
  }

  /** A path of an earlier plan may go when nobody waits for what it carried. */
  #endRetired(): void {
    for (const path of [...this.#retired]) {
      if (path.inFlight > 0 || [...this.#unknown].some((command) => command.path === path)) continue;
      this.#retired.delete(path);
      path.close("the plan has no such path any more");
    }
  }

  get #graceOver(): boolean {
    return this.#awaySinceMs >= 0 && this.#parts.clock.nowMs() - this.#awaySinceMs >= this.#graceMs;
  }

  #watch(): void {
    if (this.#tick !== null || this.#closed || this.held === 0) return;
    this.#tick = this.#parts.clock.after(tickMs, () => {
      this.#tick = null;
      this.#look();
      this.#watch();
    });
  }

  #look(): void {
    const now = this.#parts.clock.nowMs();
    this.settle();
    for (const command of [...this.#waiting]) {
      if (this.#graceOver) this.#end(command, "notReady");
      else if (now - Math.max(command.sinceMs, this.#awaySinceMs) >= this.#holdMs) this.#end(command, "busy");
    }
  }
}

/** Bytes of clients' buffers that an operation keeps. */
function heldBytesOf(operation: BlockOperation): number {
  return dataOutBytes(operation) + dataInBytes(operation);
}
