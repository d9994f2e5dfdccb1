// What sampling of accesses costs a 4 KiB read, as a ratio in one run: deno run -A tests/balance/sampling_cost.ts
// Reads go through the router into a store whose disk answers at once, so that nothing hides what sampling adds.

import { AccessSampler } from "../../lib/base/access_samples.ts";
import { BlockOperation } from "../../lib/extent/operation.ts";
import { systemClock } from "../../lib/io/system_clock.ts";
import { Router } from "../../lib/route/router.ts";
import { RouteTable } from "../../lib/route/route_table.ts";
import { MemoryDisk } from "../store/memory_disk.ts";
import { diskBytesFor, filled, freshStore, write } from "../store/store_calls.ts";

const readBytes = 4096, image = 5, pages = 16, reads = 10_000, rounds = 801;

async function routerOver(sampled: boolean): Promise<Router> {
  const store = await freshStore(new MemoryDisk("d", diskBytesFor(64)));
  for (let page = 0; page < pages; page++) await write(store, image, page, 0, filled(readBytes, page));
  const router = new Router();
  router.setLocal(1, store);
  router.addVolume(image, new RouteTable(image, 1, new Uint8Array(pages).fill(1)));
  if (sampled) router.setSampler(new AccessSampler(), systemClock);
  return router;
}

function nsOfOne(router: Router): number {
  const operation = new BlockOperation();
  operation.image = image;
  operation.lengthBytes = readBytes;
  operation.buffer = new Uint8Array(readBytes);
  let ended = 0;
  operation.done = () => void ended++;
  const since = performance.now();
  for (let i = 0; i < reads; i++) {
    operation.page = i % pages;
    router.submit(operation);
  }
  const ns = (performance.now() - since) * 1e6 / reads;
  if (ended !== reads) throw new Error(`${ended} of ${reads} reads have ended`);
  return ns;
}

const [plain, sampled] = [await routerOver(false), await routerOver(true)];
const ratios: number[] = [], costs: number[] = [];
for (let round = -50; round < rounds; round++) {
  // One first, then the other first: neither has the warmer cache.
  const first = round % 2 === 0 ? plain : sampled;
  const one = nsOfOne(first), other = nsOfOne(first === plain ? sampled : plain);
  const [without, with_] = first === plain ? [one, other] : [other, one];
  if (round < 0) continue; // compiling
  ratios.push(with_ / without);
  costs.push(with_ - without);
}
const sorted = (list: number[]) => list.toSorted((a, b) => a - b);
const at = (list: number[], share: number) => sorted(list)[Math.floor(share * (list.length - 1))]!;
console.log(
  `with sampling / without: median ${at(ratios, 0.5).toFixed(3)}, quartiles ${
    at(ratios, 0.25).toFixed(3)
  } to ` +
    `${at(ratios, 0.75).toFixed(3)}; ${at(costs, 0.5).toFixed(1)} ns a read more, of ${
      nsOfOne(plain).toFixed(0)
    }`,
);
