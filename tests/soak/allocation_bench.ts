// What the data plane allocates for a command in steady state, bytes of V8's heap: `deno run -A tests/soak/allocation_bench.ts
// [seconds] [owner]`. The load is the same process's, the heap that of the target's I/O worker that has the session, or with
// "owner" that of the only thread there is then. What it allocates without any load, mostly the meter's own looks, is taken off.

import { PortableNetwork } from "../../lib/io/portable_network.ts";
import { systemClock } from "../../lib/io/system_clock.ts";
import { systemRandom } from "../../lib/io/system_random.ts";
import { InitiatorClient, InitiatorCommand } from "../../lib/session/initiator/mod.ts";
import { split } from "../interop/plain_initiator.ts";
import { pause, program, TargetProcess } from "../interop/target_process.ts";

const seconds = Number(Deno.args[0] ?? 5);
const alone = Deno.args[1] === "owner";
const warmUpMs = 3_000;
const volumeBlocks = 64 * 2048;

interface Load {
  readonly name: string;
  readonly opcode: number;
  readonly bytes: number;
  readonly depth: number;
}
const [read10, write10] = [0x28, 0x2a];
const loads: readonly Load[] = [
  { name: "reads of 4 KiB, depth 1", opcode: read10, bytes: 4096, depth: 1 },
  { name: "reads of 4 KiB, depth 32", opcode: read10, bytes: 4096, depth: 32 },
  { name: "reads of 64 KiB, depth 32", opcode: read10, bytes: 65_536, depth: 32 },
  { name: "writes of 4 KiB, depth 1", opcode: write10, bytes: 4096, depth: 1 },
  { name: "writes of 4 KiB, depth 32", opcode: write10, bytes: 4096, depth: 32 },
  { name: "writes of 256 KiB, depth 8 (R2T)", opcode: write10, bytes: 262_144, depth: 8 },
];

const directory = await Deno.makeTempDir({ prefix: "plimsoll-allocation-" });
const file = `${directory}/meter`;
const [deno, run, ...rest] = program("../soak/metered_target.ts");
await using target = await TargetProcess.start({
  volumes: [{ name: "vol0", size: "64MiB" }],
  diskSize: "256MiB",
  command: [deno!, run!, "--v8-flags=--min-semi-space-size=64", ...rest],
  workers: alone ? 1 : 2,
  environment: {
    PLIMSOLL_METER_FILE: file,
    PLIMSOLL_METER_WORKER: alone ? "target_worker.ts" : "io_worker.ts",
  },
});

async function meter(): Promise<{ allocated: number; collections: number }> {
  for (;;) {
    await pause(250); // the last word of the meter is that old at most
    try {
      return JSON.parse(await Deno.readTextFile(file));
    } catch {
      // It is being written.
    }
  }
}

const { hostname, port } = split(target.portals[0]) as { hostname: string; port: number };
const client = await InitiatorClient.connect(new PortableNetwork(), systemClock, systemRandom, {
  portal: { hostname, port },
  initiatorName: "iqn.2026-11.net.plimsoll.test:meter",
  targetName: target.iqn(),
});
await client.command([0, 0, 0, 0, 0, 0]); // takes the unit attention
for (let lba = 0; lba < volumeBlocks; lba += 2048) {
  const cdb = [write10, 0, 0, lba >> 16, lba >> 8 & 0xff, lba & 0xff, 0, 8, 0, 0];
  await client.command(cdb, { dataOut: new Uint8Array(1 << 20).fill(lba >> 11) });
}

let ended = 0;
let wrong = 0;

/** One command after another until `over`. */
function drive(load: Load, over: () => boolean): Promise<void> {
  return new Promise((resolve) => {
    const command = new InitiatorCommand();
    const data = new Uint8Array(load.bytes);
    const blocks = load.bytes / 512;
    const submit = () => {
      const lba = Math.floor(Math.random() * (volumeBlocks / blocks)) * blocks;
      command.cdb.set([
        load.opcode,
        0,
        0,
        lba >> 16,
        lba >> 8 & 0xff,
        lba & 0xff,
        0,
        blocks >> 8,
        blocks & 0xff,
        0,
      ]);
      if (load.opcode === write10) {
        command.dataOut = data;
        command.dataOutLength = data.length;
      } else {
        command.dataIn = data;
        command.dataInLength = data.length;
      }
      client.session.submit(command);
    };
    command.done = () => {
      ended++;
      if (command.outcome !== "completed" || command.status !== 0) wrong++;
      if (over()) resolve();
      else submit();
    };
    submit();
  });
}

await pause(warmUpMs);
const idleBefore = await meter();
await pause(seconds * 1000);
const idleAfter = await meter();
const idleRate = (idleAfter.allocated - idleBefore.allocated) / (seconds + 0.25);
console.log(`idle: ${Math.round(idleRate)} bytes a second`);

for (const load of loads) {
  let over = false;
  const driving = Promise.all(Array.from({ length: load.depth }, () => drive(load, () => over)));
  await pause(warmUpMs); // the compiler has its say, pools fill
  const [before, endedBefore, begin] = [await meter(), ended, performance.now()];
  await pause(seconds * 1000);
  const [after, commands] = [await meter(), ended - endedBefore];
  const took = (performance.now() - begin) / 1000;
  over = true;
  await driving;
  const bytes = after.allocated - before.allocated - idleRate * took;
  console.log(
    `${load.name.padEnd(34)} ${String(commands).padStart(8)} commands  ${
      (bytes / commands).toFixed(1).padStart(8)
    } bytes each  ` +
      `${after.collections - before.collections} collections`,
  );
}
if (wrong > 0) console.error(`${wrong} commands failed: what was measured is something else.`);
await client.logout();
const { code } = await target.stop();
await Deno.remove(directory, { recursive: true });
Deno.exitCode = wrong > 0 || code !== 0 ? 1 : 0;
