// Decides, now and then, which of this member's pages go to another one, and has them moved: to empty a member, to make room
// on a disk that is nearly full, so that every disk has its share of the homes (lib/balance/page_plan.ts), and so that no
// member is much hotter than the others (heat_balance.ts).

import type { Clock, Timer } from "../../base/clock.ts";
import { limits } from "../../base/limits.ts";
import type { Log } from "../../base/log.ts";
import { type PagePlan, type PlacementState, planPages, type VolumeState } from "../../balance/page_plan.ts";
import type { Router } from "../../route/router.ts";
import type { ServedDisk } from "./disks.ts";
import type { Drains } from "./drains.ts";
import type { HeatBalance } from "./heat_balance.ts";
import type { Mover } from "./mover.ts";
import type { Usage } from "./usage.ts";
import type { Volumes } from "./volumes.ts";

export interface PageDeciderParts {
  readonly clock: Clock;
  readonly log: Log;
  readonly member: { readonly name: string };
  readonly disks: readonly ServedDisk[];
  readonly router: Router;
  readonly volumes: Volumes;
  readonly volumeStates: () => readonly VolumeState[];
  readonly hasSlot: (placement: number, image: number, page: number) => boolean;
  readonly usage: Usage;
  readonly drains: Drains;
  readonly mover: Mover;
  readonly heat: HeatBalance;
}

export class PageDecider {
  readonly #parts: PageDeciderParts;
  #timer: Timer | null = null;
  #closed = false;
  #started = false;
  /** Something has changed since the look that is under way began. */
  #changed = false;
  /** Since when there has been something to do for balance; -1: there is not. */
  #unlikeSinceMs = -1;
  #underWay = false;
  #failures = 0;
  #trouble: string | null = null;
  #drained = false;

  constructor(parts: PageDeciderParts) {
    this.#parts = parts;
  }

  start(): void {
    this.#started = true;
    this.#later(limits.moveLookMs);
  }

  /** Something has changed that it goes by. */
  soon(): void {
    if (this.#timer !== null) this.#later(0);
    else this.#changed = this.#started;
  }

  close(): void {
    this.#closed = true;
    this.#timer?.cancel();
  }

  notices(): string[] {
    const { drains, member } = this.#parts;
    if (!drains.losesPages(member.name)) return [];
    const out = this.#trouble === null ? [] : [this.#trouble];
    const left = this.pagesLeft();
    out.push(
      left > 0
        ? `The member is being drained: ${left} pages have their homes here yet.`
        : "The member has been drained: no page has its home here. Stop it, and run: plimsoll member remove.",
    );
    return out;
  }

  /** Pages that have their homes on this member's disks. */
  pagesLeft(): number {
    const { volumes, router, disks } = this.#parts;
    let pages = 0;
    for (const { record } of volumes.served()) {
      const table = router.table(record.image);
      for (const disk of disks) pages += table?.pagesOf(disk.record.placement) ?? 0;
    }
    return pages;
  }

  #later(ms: number): void {
    this.#timer?.cancel();
    if (this.#closed) return;
    this.#timer = this.#parts.clock.after(ms, () => {
      this.#timer = null;
      this.#changed = false;
      void this.#look().then((nextMs) => this.#later(this.#changed ? 0 : nextMs)); // a mistake of ours ends the process
    });
  }

  /** Resolves with the time until the next look, milliseconds. */
  async #look(): Promise<number> {
    const { mover, clock, log, drains, member, usage, volumes, heat } = this.#parts;
    if (!mover.idle) return limits.moveLookMs;
    // Nothing to be moved: nobody is asked.
    const asked = volumes.served().length === 0 ? Promise.resolve([]) : usage.capacity();
    const capacity = await asked.catch((error: Error) => error);
    if (capacity instanceof Error) {
      log.debug("cannot look which pages are to move: the metadata is away", { reason: capacity.message });
      return limits.moveLookMs;
    }
    const plan = await this.#plan(capacity);
    if (plan === null || plan.reason !== "balance") this.#unlikeSinceMs = -1;
    if (plan === null) {
      this.#underWay = false;
      this.#tellDrained();
      return limits.moveLookMs;
    }
    this.#drained = false;
    if (plan.reason === "balance" && !this.#underWay) {
      const now = clock.nowMs();
      if (this.#unlikeSinceMs < 0) this.#unlikeSinceMs = now;
      if (now - this.#unlikeSinceMs < limits.moveAfterMs) return limits.moveLookMs;
    }
    this.#underWay = plan.reason === "balance";
    if (this.#closed || !mover.idle) return limits.moveLookMs;
    const outcome = await mover.move(plan);
    const fields = { volume: plan.volume, pages: plan.pages.length, to: plan.to, reason: plan.reason };
    if (outcome.kind === "moved") {
      log.debug("pages have moved", fields);
      heat.moved(plan);
      this.#failures = 0;
      this.#trouble = null;
      return 0;
    }
    const why = outcome.kind === "failed" ? outcome.reason : "what became of it is not known";
    log.warn("pages could not be moved; they stay where they were", { ...fields, why });
    heat.failed(plan, why);
    this.#failures++;
    if (drains.losesPages(member.name)) {
      this.#trouble = `Pages of volume "${plan.volume}" could not be moved away: ${why}. It is tried again.`;
    }
    return Math.min(limits.moveRetryMsMax, limits.moveLookMs * 2 ** this.#failures);
  }

  #tellDrained(): void {
    const { drains, member, log } = this.#parts;
    if (!drains.losesPages(member.name) || this.#drained) return;
    const left = this.pagesLeft();
    this.#drained = left === 0;
    if (left === 0) {
      this.#trouble = null;
      log.info("the member has been drained: no page has its home here");
    } else {
      this.#trouble =
        `${left} pages cannot be moved away: no other member is up, has room, and may hold them. ` +
        "Start or add one (volumes made with --members may lie on those only).";
    }
  }

  async #plan(capacity: Awaited<ReturnType<Usage["capacity"]>>): Promise<PagePlan | null> {
    const { drains, member, volumeStates, hasSlot, heat } = this.#parts;
    const placements = capacity.map(({ placement, member: name, freePages, slots, up }): PlacementState => ({
      placement,
      member: name,
      slots,
      freeSlots: freePages,
      up: up !== false,
      draining: drains.losesPages(name),
    }));
    const volumes = volumeStates();
    const plan = planPages(member.name, placements, volumes, hasSlot, this.#underWay);
    if (plan !== null && plan.reason !== "balance") return plan;
    return heat.owed(placements, volumes) ?? plan ?? await heat.next(placements, volumes);
  }
}
