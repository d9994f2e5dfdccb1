// The process that kill_test.ts kills: opens the store in the file named first and writes until it dies. Says "begin" and "end"
// of each operation on its standard output, so that the other side knows what was in flight and what was acknowledged.

import { openFileDisk } from "../../lib/io/file_disk.ts";
import { BlockOperation } from "../../lib/extent/operation.ts";
import { openStore } from "../../lib/store/mod.ts";
import { sectorBytes, stampSector } from "./block_oracle.ts";
import { bootId, identity, pageBytes, SeededRandom } from "./store_calls.ts";

const [path, seed] = Deno.args as [string, string];
const random = new SeededRandom(Number(seed));
const store = await openStore(openFileDisk(path), identity, { bootId });
const encoder = new TextEncoder();
const busy = new Set<number>();
let id = Number(seed) * 1_000_000;

/** Blocking, so that nothing acknowledged waits in this process when it dies. */
function say(text: string): void {
  Deno.stdout.writeSync(encoder.encode(text + "\n"));
}

function next(operation: BlockOperation): void {
  do operation.page = random.below(20); while (busy.has(operation.page));
  busy.add(operation.page);
  const stamp = ++id;
  const whole = random.chance(0.3);
  const sector = random.below(pageBytes / sectorBytes - 3);
  const count = whole ? pageBytes / sectorBytes : 1 + random.below(3);
  operation.kind = whole ? "unmap" : "write";
  operation.offsetBytes = whole ? 0 : sector * sectorBytes;
  operation.lengthBytes = count * sectorBytes;
  operation.durable = random.chance(0.02);
  if (!whole) {
    for (let s = 0; s < count; s++) {
      stampSector(operation.buffer, s * sectorBytes, 1, operation.page, sector + s, stamp);
    }
  }
  const what = `${operation.page} ${whole ? 0 : sector} ${count} ${whole ? 0 : stamp}`;
  say(`begin ${what}`);
  operation.done = () => {
    busy.delete(operation.page);
    if (operation.outcome !== "done") say(`failed ${operation.outcome}`);
    else say(`end ${what}`);
    next(operation);
  };
  store.submit(operation);
}

say("ready");
for (let i = 0; i < 8; i++) {
  const operation = new BlockOperation();
  operation.image = 1;
  operation.buffer = new Uint8Array(3 * sectorBytes);
  next(operation);
}
