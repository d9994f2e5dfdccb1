// Swaps hot pages of this member for cold ones of a faster one (lib/balance/heat_plan.ts decides): asks the other member first,
// and gives back what it has agreed to when it is asked. A swap is two moves of pages like any other, one by each member; what
// is kept of it between the two is in memory only, and when it is lost, one has a few pages more than before.

import type { Clock } from "../../base/clock.ts";
import type { Log } from "../../base/log.ts";
import { limits } from "../../base/limits.ts";
import {
  HeatPatience,
  type HeatSettings,
  isHotter,
  type MemberHeat,
  planReturn,
  planSwap,
  type SwapDebt,
  type SwapPlan,
} from "../../balance/heat_plan.ts";
import type { PagePlan, PlacementState, VolumeState } from "../../balance/page_plan.ts";
import { decodeSwap, encodeSwap, SwapRefusal, swapRefusalWords } from "../../balance/page_swap.ts";
import type { MemberView } from "../../balance/view.ts";
import type { MessageAnswer, MessageOutcome } from "../../forward/mod.ts";
import { MessageKind, MessageRefusal } from "../../wire/scsi/member_message.ts";
import type { Forwarding } from "./forwarding.ts";
import type { GroupPicture } from "./group_picture.ts";
import type { HeatMeter } from "./heat_meter.ts";

/** A message that asks for a swap is answered at once. */
const answerMs = 1_500;
/** A member that has refused is not asked again for so long, milliseconds: the next fastest is. */
const refusedMs = 600_000;

export interface HeatBalanceParts {
  readonly clock: Clock;
  readonly log: Log;
  readonly settings: HeatSettings;
  readonly meter: HeatMeter;
  readonly picture: Pick<GroupPicture, "members" | "fellow">;
  readonly forwarding: Pick<Forwarding, "messenger" | "messages">;
  /** The volumes served here. */
  readonly volumes: () => readonly VolumeState[];
  /** A disk of this member; null: it has none of this placement. */
  readonly own: (placement: number) => { readonly freeSlots: number } | null;
  readonly hasSlot: (placement: number, image: number, page: number) => boolean;
}

/** What status and `balance show` say of it. */
export interface HeatReport {
  /** Why pages are swapped, or are not. */
  readonly why: string;
  /** Pages given because they were hot, and pages given back for such, since the start. */
  readonly hotPages: number;
  readonly coldPages: number;
}

export class HeatBalance {
  readonly #parts: HeatBalanceParts;
  readonly #patience = new HeatPatience();
  /** What has been agreed to, and until when it counts. */
  #debt: { readonly debt: SwapDebt; readonly to: string; readonly untilMs: number } | null = null;
  /** Until when members that have refused are left alone. */
  readonly #refusedUntilMs = new Map<string, number>();
  /** A swap that was agreed to by the other member and has not been made yet. */
  #asking = false;
  #said: { readonly words: string; readonly atMs: number } | null = null;
  #hotPages = 0;
  #coldPages = 0;

  constructor(parts: HeatBalanceParts) {
    this.#parts = parts;
    parts.forwarding.messages.listen(
      MessageKind.pageSwap,
      (from, body, answer) => answer(this.#asked(from, body)),
    );
  }

  report(): HeatReport {
    return { why: this.#why(), hotPages: this.#hotPages, coldPages: this.#coldPages };
  }

  /** Cold pages that go back now; null: nothing is owed yet, or no more. */
  owed(placements: readonly PlacementState[], volumes: readonly VolumeState[]): PagePlan | null {
    const { clock, meter, hasSlot, settings, log } = this.#parts;
    const kept = this.#debt;
    if (kept === null) return null;
    const { debt, untilMs, to: member } = kept;
    const volume = volumes.find(({ image }) => image === debt.image);
    const to = placements.find(({ placement }) => placement === debt.to);
    const over = (words: string) => {
      this.#debt = null;
      this.#say(words);
      log.info("a swap of pages is left half made", { member, image: debt.image, because: words });
      return null;
    };
    const came = volume !== undefined && debt.pages.every((page) => volume.table.homeOf(page) === debt.from);
    if (volume === undefined || clock.nowMs() >= untilMs) {
      if (came) return over(`no page could be given back to "${member}" in time`);
      this.#debt = null; // the other member has thought better of it, or has died
      return null;
    }
    if (!came || to === undefined || !to.up) return null;
    meter.look();
    return planReturn(debt, volume, to, hasSlot, meter, settings) ??
      over(`no page is cool enough to go back to "${member}", or it has no room`);
  }

  /** Hot pages that another member has agreed to take; null: nothing is to be done. */
  async next(
    placements: readonly PlacementState[],
    volumes: readonly VolumeState[],
  ): Promise<PagePlan | null> {
    const { clock, meter, settings } = this.#parts;
    const { own, others } = this.#members();
    if (!this.#patience.isTime(own, others, settings, clock.nowMs())) return null;
    if (this.#debt !== null) return null;
    meter.look();
    const willing = others.filter(({ name }) => (this.#refusedUntilMs.get(name) ?? 0) <= clock.nowMs());
    const plan = planSwap(own, willing, placements, volumes, meter, settings);
    this.#patience.rest(clock.nowMs());
    if (plan === null) {
      if (willing.length < others.length) return null; // what they have said stands
      this.#say(
        "too hot, but no page is so hot that giving it away would help, or no faster member has room",
      );
      return null;
    }
    this.#asking = true;
    const outcome = await this.#ask(plan, own);
    this.#asking = false;
    if (outcome.kind === "taken") {
      const { volume, pages, perS, member } = plan;
      const share = own.accessesPerS > 0 ? Math.round(100 * Math.min(1, perS / own.accessesPerS)) : 0;
      this.#say(`${pages.length} hot pages of "${volume}" (${share} % of all accesses) go to "${member}"`);
      return plan;
    }
    const because = outcome.kind === "lost"
      ? `could not be asked (${outcome.reason})`
      : `refuses: ${swapRefusalWords[outcome.reason] ?? `reason ${outcome.reason}`}`;
    this.#refusedUntilMs.set(plan.member, clock.nowMs() + refusedMs);
    this.#say(`too hot, but "${plan.member}" ${because}`);
    return null;
  }

  /** A plan of any kind has been carried out. */
  moved(plan: PagePlan): void {
    const { meter, clock } = this.#parts;
    meter.left(plan.image, plan.pages);
    if (plan.reason === "heat") {
      this.#hotPages += plan.pages.length;
      this.#patience.rest(clock.nowMs());
    }
    if (plan.reason !== "swap") return;
    this.#coldPages += plan.pages.length;
    this.#say(`${plan.pages.length} cold pages of "${plan.volume}" have gone back to "${this.#debt?.to}"`);
    this.#debt = null;
  }

  failed(plan: PagePlan, because: string): void {
    if (plan.reason !== "heat" && plan.reason !== "swap") return;
    this.#say(`${plan.pages.length} pages of "${plan.volume}" could not be moved: ${because}`);
  }

  #members(): { own: MemberHeat; others: MemberHeat[] } {
    const [own, ...others] = this.#parts.picture.members().map(heatOf);
    return { own: own!, others };
  }

  #ask(plan: SwapPlan, own: MemberHeat): Promise<MessageOutcome> {
    const body = encodeSwap({ ...plan, accessUs: own.accessUs });
    return new Promise((resolve) =>
      this.#parts.forwarding.messenger.send(plan.member, MessageKind.pageSwap, body, answerMs, resolve)
    );
  }

  #asked(from: string, body: Uint8Array): MessageAnswer {
    const { clock, log, meter, settings, volumes, own: ownDisk, hasSlot, picture } = this.#parts;
    const request = decodeSwap(body);
    if (request === null || picture.fellow(from) === undefined) {
      log.warn("a request for a swap of pages makes no sense and was not taken", { member: from });
      return { reason: MessageRefusal.malformed };
    }
    const { own } = this.#members();
    if (own.draining) return { reason: SwapRefusal.draining };
    // What the other says of itself; what this member is, it knows better than any report.
    if (!settings.heat || !isHotter(request, own, settings)) return { reason: SwapRefusal.notCooler };
    const now = clock.nowMs();
    if (this.#asking || this.#debt !== null) return { reason: SwapRefusal.busy };
    const volume = volumes().find(({ image }) => image === request.image);
    const disk = ownDisk(request.to);
    if (volume === undefined || disk === null || volume.table.pagesOf(request.to) === 0) {
      return { reason: SwapRefusal.noSlice };
    }
    const { table } = volume;
    const theirs = request.pages.every((page) => page < table.pages && table.homeOf(page) === request.from);
    if (!theirs) return { reason: SwapRefusal.noSlice };
    if (disk.freeSlots < request.pages.length) return { reason: SwapRefusal.full };
    const debt: SwapDebt = { ...request, from: request.to, to: request.from };
    // The other member gives as many slots back as it gets pages.
    const there: PlacementState = {
      placement: debt.to,
      member: from,
      slots: request.pages.length,
      freeSlots: request.pages.length,
      up: true,
      draining: false,
    };
    meter.look();
    const back = planReturn(debt, volume, there, hasSlot, meter, settings);
    if (back === null || back.pages.length < request.pages.length) return { reason: SwapRefusal.noColdPages };
    this.#debt = { debt, to: from, untilMs: now + limits.swapTimeMs };
    return null;
  }

  #say(words: string): void {
    this.#said = { words, atMs: this.#parts.clock.nowMs() };
  }

  #why(): string {
    const { settings, clock } = this.#parts;
    if (!settings.heat) return "pages are not swapped ([balance] heat = false)";
    const { own, others } = this.#members();
    const now = clock.nowMs();
    const lasts = this.#said === null
      ? ""
      : `; ${Math.round((now - this.#said.atMs) / 1000)} s ago: ${this.#said.words}`;
    const fastest = others.filter(({ draining }) => !draining)
      .toSorted((a, b) => a.accessUs - b.accessUs)[0];
    if (fastest === undefined) return `no other member is heard of${lasts}`;
    const us = (member: MemberHeat) => `${Math.round(member.accessUs)} µs`;
    const compared = `an access takes ${us(own)} here, ${us(fastest)} at "${fastest.name}"`;
    const hotMs = this.#patience.hotForMs(now);
    const verdict = hotMs < 0
      ? "not too hot"
      : `too hot for ${Math.round(hotMs / 1000)} s of at least ${Math.round(settings.heatMs / 1000)}`;
    return `${verdict}: ${compared}${lasts}`;
  }
}

function heatOf({ name, load }: MemberView): MemberHeat {
  const { tag, draining, accessUs, accessesPerS } = load;
  return { tag, name, draining, accessUs, accessesPerS };
}
