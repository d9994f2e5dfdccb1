// How much this member's pages are used, out of the samples that its threads leave; read when somebody wants to know.

import { AccessSampler, AccessSampleReader } from "../../base/access_samples.ts";
import type { Clock } from "../../base/clock.ts";
import { PageHeat } from "../../balance/page_heat.ts";
import type { HeatView } from "../../balance/heat_plan.ts";
import type { Router } from "../../route/router.ts";
import type { DataPlane } from "./data_plane.ts";

export interface HeatMeterParts {
  readonly clock: Clock;
  readonly router: Pick<Router, "setSampler">;
  readonly dataPlane: Pick<DataPlane, "takeSamples"> | null;
}

export class HeatMeter implements HeatView {
  readonly #parts: HeatMeterParts;
  readonly #heat: PageHeat;
  readonly #own: AccessSampleReader;

  constructor(parts: HeatMeterParts) {
    const { clock, router } = parts;
    this.#parts = parts;
    this.#heat = new PageHeat(clock.nowMs());
    const sampler = new AccessSampler();
    this.#own = new AccessSampleReader(sampler.memory);
    router.setSampler(sampler, clock);
  }

  /** Takes in what has been sampled since the last time. */
  look(): void {
    const now = this.#parts.clock.nowMs();
    const note = (image: number, page: number, accesses: number) =>
      this.#heat.note(image, page, accesses, now);
    const all = [this.#own.take(note), ...this.#parts.dataPlane?.takeSamples(note) ?? []];
    this.#heat.noteAll({
      accesses: all.reduce((sum, { accesses }) => sum + accesses, 0),
      timed: all.reduce((sum, { timed }) => sum + timed, 0),
      timedUs: all.reduce((sum, { timedUs }) => sum + timedUs, 0),
    }, now);
  }

  /** What the disks here do for the clients of all members. */
  member(): { readonly accessesPerS: number; readonly accessUs: number } {
    this.look();
    return this.#heat.member(this.#parts.clock.nowMs());
  }

  perS(image: number, page: number): number {
    return this.#heat.perS(image, page, this.#parts.clock.nowMs());
  }

  hottest(image: number) {
    return this.#heat.hottest(image, this.#parts.clock.nowMs());
  }

  stayMs(image: number, page: number): number {
    return this.#heat.stayMs(image, page, this.#parts.clock.nowMs());
  }

  /** Pages that have their home here from now on. */
  arrived(image: number, pages: readonly number[]): void {
    for (const page of pages) this.#heat.arrived(image, page, this.#parts.clock.nowMs());
  }

  left(image: number, pages: readonly number[]): void {
    for (const page of pages) this.#heat.left(image, page, this.#parts.clock.nowMs());
  }
}
