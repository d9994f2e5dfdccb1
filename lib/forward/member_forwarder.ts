// The asking end of member sessions: the router's way to homes on other members. It finds the member of a placement, and
// sends again what came to a member that is not the page's home (any more, or yet).

import { assert } from "../base/assert.ts";
import type { Timer } from "../base/clock.ts";
import { limits } from "../base/limits.ts";
import type { BlockOperation } from "../extent/operation.ts";
import type { RouteTable } from "../route/route_table.ts";
import type { Forwarder } from "../route/router.ts";
import { Forwarded } from "./forwarded.ts";
import { HomeLink, type LinkOwner, type LinkParts } from "./home_link.ts";
import { hopsMax } from "./identity.ts";

export type ForwarderSettings =
  & Omit<LinkParts, "holdMs" | "graceMs" | "commandsMax">
  & Partial<Pick<LinkParts, "holdMs" | "graceMs" | "commandsMax">>;

export interface ForwarderParts extends ForwarderSettings {
  /** The member whose disk a placement id stands for; null: not known (yet). */
  readonly memberOf: (placement: number) => string | null;
  readonly table: (image: number) => RouteTable | null;
  readonly isLocal: (placement: number) => boolean;
  /** Carries out what has turned out to have its home here. */
  readonly submitLocal: (placement: number, operation: BlockOperation) => void;
  /** A home knows a newer route table of the image than this member. */
  readonly behind: (image: number, epoch: number) => void;
}

export class MemberForwarder implements Forwarder, LinkOwner {
  readonly #parts: ForwarderParts & LinkParts;
  /** By hop class and member. */
  readonly #links: readonly Map<string, HomeLink>[] = Array.from({ length: hopsMax }, () => new Map());
  readonly #free: Forwarded[] = [];
  readonly #rerouting = new Map<Forwarded, Timer>();
  #closed = false;

  constructor(parts: ForwarderParts) {
    this.#parts = {
      holdMs: limits.forwardHoldMs,
      graceMs: limits.forwardGraceMs,
      commandsMax: limits.forwardCommandsMax,
      ...parts,
    };
  }

  /** Operations that have not ended. */
  get pending(): number {
    let sum = this.#rerouting.size;
    for (const link of this.links()) sum += link.pending;
    return sum;
  }

  links(): readonly HomeLink[] {
    return this.#links.flatMap((links) => [...links.values()]);
  }

  submit(placement: number, operation: BlockOperation, hops: number): void {
    assert(hops >= 1, "an operation was forwarded less than once");
    if (hops > hopsMax) { // its page has just moved away from here
      operation.outcome = "busy";
      operation.done(operation);
      return;
    }
    const forwarded = this.#free.pop() ?? new Forwarded((f) => this.#link(f).done(f));
    forwarded.operation = operation;
    forwarded.route.hops = hops;
    forwarded.sinceMs = this.#parts.clock.nowMs();
    forwarded.stale = 0;
    forwarded.cancelled = false;
    operation.ticket = forwarded;
    this.#send(forwarded, placement);
  }

  cancel(operation: BlockOperation): void {
    const forwarded = operation.ticket as Forwarded;
    const timer = this.#rerouting.get(forwarded);
    if (timer === undefined) return this.#link(forwarded).cancel(forwarded);
    timer.cancel();
    this.#rerouting.delete(forwarded);
    this.#give(forwarded, "busy");
  }

  /** The member stops: whoever still waits is answered. */
  close(): void {
    this.#closed = true;
    for (const [forwarded, timer] of [...this.#rerouting]) {
      timer.cancel();
      this.#rerouting.delete(forwarded);
      this.#give(forwarded, "notReady");
    }
    for (const link of this.links()) link.close();
  }

  // LinkOwner

  ended(forwarded: Forwarded): void {
    this.#free.push(forwarded);
  }

  misdirected(forwarded: Forwarded, epoch: number): void {
    const { clock, holdMs, table, behind } = this.#parts;
    const { image } = forwarded.operation;
    if (this.#closed) return this.#give(forwarded, "notReady");
    if (clock.nowMs() - forwarded.sinceMs >= holdMs) return this.#give(forwarded, "busy");
    if (epoch > (table(image)?.epoch ?? 0)) behind(image, epoch);
    forwarded.state = "rerouting";
    const pauseMs = Math.min(5 * 2 ** forwarded.stale++, limits.forwardRetryMsMax);
    this.#rerouting.set(
      forwarded,
      clock.after(pauseMs, () => {
        this.#rerouting.delete(forwarded);
        this.#reroute(forwarded);
      }),
    );
  }

  #reroute(forwarded: Forwarded): void {
    const { operation, route } = forwarded;
    const table = this.#parts.table(operation.image);
    if (table === null) return this.#give(forwarded, "notReady");
    if (operation.moveStep !== null) return this.#send(forwarded, route.placement); // never elsewhere
    if (operation.kind === "flush") {
      // What it had is durable elsewhere; what was written there since, the flush fan sees to.
      if (table.pagesOf(route.placement) === 0) return this.#give(forwarded, "done");
      return this.#send(forwarded, route.placement);
    }
    const home = table.homeOf(operation.page);
    if (!this.#parts.isLocal(home)) return this.#send(forwarded, home);
    forwarded.drop();
    this.#free.push(forwarded);
    this.#parts.submitLocal(home, operation);
  }

  #send(forwarded: Forwarded, placement: number): void {
    const { memberOf, member, table } = this.#parts;
    const routes = table(forwarded.operation.image);
    const home = memberOf(placement);
    forwarded.route.placement = placement;
    if (routes === null || home === member || this.#closed) return this.#give(forwarded, "notReady");
    if (home === null) return this.misdirected(forwarded, 0); // its disk's record has not come yet
    forwarded.route.epoch = routes.epoch;
    forwarded.home = home;
    this.#link(forwarded).submit(forwarded);
  }

  #give(forwarded: Forwarded, outcome: BlockOperation["outcome"]): void {
    forwarded.end(outcome);
    this.#free.push(forwarded);
  }

  #link(forwarded: Forwarded): HomeLink {
    const { hops } = forwarded.route;
    const links = this.#links[hops - 1]!;
    let link = links.get(forwarded.home);
    if (link === undefined) {
      link = new HomeLink(forwarded.home, hops, this.#parts, this);
      links.set(forwarded.home, link);
    }
    return link;
  }
}
