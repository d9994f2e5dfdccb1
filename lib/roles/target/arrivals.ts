// What lies on this member's disks and is no page: copies of pages that are on their way here, and leftovers of moves, here
// and elsewhere, that a death cut short. A slot is given back only when the route table, read from the metadata after
// everybody who could still change it is gone, names another home (docs/consistency.md, "A page moves").

import type { Log } from "../../base/log.ts";
import { BlockOperation } from "../../extent/operation.ts";
import type { IncomingPage, IncomingPages, KeepOff } from "../../forward/mod.ts";
import type { Metadata } from "../../meta/metadata.ts";
import { decodeRecord, keys, type LiveRecord, routeChunkPages } from "../../meta/records.ts";
import { chunkOf } from "../../route/route_records.ts";
import type { Router } from "../../route/router.ts";
import type { DataPlane } from "./data_plane.ts";
import type { ServedDisk } from "./disks.ts";
import type { HeatMeter } from "./heat_meter.ts";

export interface ArrivalsParts {
  readonly metadata: Metadata;
  readonly log: Log;
  readonly router: Router;
  readonly disks: readonly ServedDisk[];
  readonly dataPlane: DataPlane | null;
  readonly exclude: KeepOff;
  readonly incoming: IncomingPages;
  readonly heat: Pick<HeatMeter, "arrived">;
  readonly pageBytes: number;
  /** The member that has this name as an initiator. */
  readonly nameOf: (initiator: string) => string;
  /** The run of the process that is this member, as far as is known here; null: none. */
  readonly runOf: (member: string) => string | null;
}

export class Arrivals {
  readonly #parts: ArrivalsParts;
  #dropping: Promise<void> = Promise.resolve();

  constructor(parts: ArrivalsParts) {
    this.#parts = parts;
  }

  /** May other threads know where the page lies? */
  mayShow(image: number, page: number, placement: number): boolean {
    const { router } = this.#parts;
    const table = router.table(image);
    if (table === null || page >= table.pages || table.homeOf(page) !== placement) return false;
    return router.leaving === null || router.leaving.image !== image || !router.leaving.has(page);
  }

  /** The route table of the image is known, or has changed. */
  routesLearned(image: number): void {
    const pages = this.#parts.incoming.arrived(image);
    if (pages.length === 0) return;
    this.#parts.dataPlane?.showPages(image, pages);
    this.#parts.heat.arrived(image, pages);
  }

  /** The volume has just been opened, with routes read after this process became the member. */
  async giveBackLeftovers(image: number): Promise<void> {
    const { disks, router, exclude, incoming, pageBytes, log } = this.#parts;
    let count = 0;
    for (const { record, store } of disks) {
      const pages = [...store.pagesOf(image)];
      for (const page of pages) {
        const isLeftover = () => {
          const table = router.table(image);
          return table !== null && page < table.pages && table.homeOf(page) !== record.placement &&
            !incoming.has(image, page, record.placement) && store.hasPage(image, page);
        };
        if (!isLeftover()) continue;
        await new Promise<void>((resolve) =>
          exclude(image, (ended) => {
            const operation = new BlockOperation();
            operation.kind = "unmap";
            operation.image = image;
            operation.page = page;
            operation.lengthBytes = pageBytes;
            operation.mayUnmap = true;
            operation.done = () => {
              ended();
              resolve();
            };
            if (isLeftover()) store.submit(operation);
            else operation.done(operation);
          })
        );
        count++;
      }
    }
    if (count > 0) log.info("gave back what moves had left over", { image, pages: count });
  }

  /** Members have come or gone: what the dead were copying here is given back, or has arrived. */
  fellowsChanged(): void {
    this.#dropping = this.#dropping.then(() => this.#dropDead()).catch((error: Error) => {
      // The metadata is away; the next change of members, or the next move of the page, does it.
      this.#parts.log.warn("cannot look whose page moves were cut short", { reason: error.message });
    });
  }

  async #dropDead(): Promise<void> {
    const { incoming, nameOf, runOf } = this.#parts;
    const all = [...incoming.all()].filter(({ initiator, run }) => runOf(nameOf(initiator)) !== run);
    for (const page of all) if (await this.#isOver(page)) await incoming.drop(page);
  }

  /** True: the process that was copying it is gone for certain, and has not made this member its home. */
  async #isOver({ image, page, initiator, run, placement }: IncomingPage): Promise<boolean> {
    const { metadata, incoming, nameOf } = this.#parts;
    const liveKey = keys.live(nameOf(initiator));
    const live = await metadata.get(liveKey);
    if (live !== null && decodeRecord<LiveRecord>(liveKey, live.value).run === run) return false;
    // Read after that: whatever the dead process has still changed is in it.
    const routes = await metadata.get(keys.route(image, chunkOf(page)));
    if (routes === null || routes.value[page - chunkOf(page) * routeChunkPages] === placement) return false;
    return incoming.runOf(image, page) === run; // nobody has begun anew meanwhile
  }
}
