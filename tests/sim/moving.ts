// Members of a group give pages to each other, over and over, while they are used and everything goes wrong: each moves its
// own, as in the program, but which ones and where to is drawn. In the end each page lies on its home alone.

import type { SeededRandom } from "../store/store_calls.ts";
import type { Machine } from "./machine.ts";
import type { Scheduler } from "./scheduler.ts";
import type { Coverage } from "./weather.ts";

export interface MovingWorld {
  readonly scheduler: Scheduler;
  readonly coverage: Coverage;
  readonly machines: readonly Machine[];
  readonly stormy: () => boolean;
  readonly problem: (what: string) => void;
}

/** A move that has not ended by then has lost its process, milliseconds. */
const patienceMs = 60_000;

export async function keepMoving(
  world: MovingWorld,
  machine: Machine,
  random: SeededRandom,
  pauseMs: number,
): Promise<void> {
  const { scheduler, stormy, coverage } = world;
  while (stormy()) {
    await scheduler.sleep(random.below(1000) / 1000 * 2 * pauseMs);
    if (!stormy() || !machine.steady || !machine.target.mover.idle) continue;
    const batch = drawBatch(world.machines, machine, random);
    if (batch === null) continue;
    const outcome = await Promise.race([
      machine.target.mover.move(batch),
      scheduler.sleep(patienceMs).then(() => ({ kind: "lost" as const })),
    ]);
    coverage.hit(`pages ${outcome.kind}`);
  }
}

function drawBatch(machines: readonly Machine[], machine: Machine, random: SeededRandom) {
  const { router, volumes, disks } = machine.target;
  const served = volumes.served();
  const others = machines.filter((other) => other !== machine && other.running)
    .flatMap(({ target }) => target.disks.map(({ record }) => record.placement));
  if (served.length === 0 || others.length === 0) return null;
  const { record } = random.pick(served);
  const table = router.table(record.image)!;
  const from = random.pick(disks).record.placement;
  const here = Array.from({ length: table.pages }, (_, page) => page).filter((page) =>
    table.homeOf(page) === from
  );
  if (here.length === 0) return null;
  const count = 1 + random.below(Math.min(4, here.length));
  const first = random.below(here.length - count + 1);
  return {
    volume: record.name,
    image: record.image,
    pages: here.slice(first, first + count),
    from,
    to: random.pick(others),
  };
}

/** In calm weather, with every member running: sentences about pages that lie where they must not, and tables that differ. */
export function misplacedPages(machines: readonly Machine[]): string[] {
  const out: string[] = [];
  const tables = new Map<number, string>();
  for (const { name, target } of machines) {
    for (const { record } of target.volumes.served()) {
      const { image } = record;
      const table = target.router.table(image)!;
      const text = table.slice(0, table.pages).toHex();
      const other = tables.get(image) ?? text;
      tables.set(image, other);
      if (other !== text) out.push(`${name} has other routes of ${record.name}: ${text}, and not ${other}`);
      for (const { record: { placement }, store } of target.disks) {
        if (!store.writable) continue; // gives nothing back until its next start
        for (const page of store.pagesOf(image)) {
          if (table.homeOf(page) === placement || target.incoming.has(image, page, placement)) continue;
          out.push(`${name} holds page ${page} of ${record.name}, whose home is ${table.homeOf(page)}`);
        }
      }
    }
  }
  return out;
}
