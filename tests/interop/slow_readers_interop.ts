// Without this, initiators that ask for all they may and read little or nothing could eat the member's memory, or keep its
// buffers from the one that reads: 255 of them at depth 128, beside an honest session.

import { strict as assert } from "node:assert";
import { limits } from "../../lib/base/limits.ts";
import { PlainInitiator } from "./plain_initiator.ts";
import { SlowReader } from "./slow_reader.ts";
import { pause, TargetProcess } from "./target_process.ts";

const MiB = 1 << 20;
const hostile = limits.connectionsMax - 1;
const blocksOfRead = 512; // 256 KiB
const unwrittenLba = 32 * 2048;
const heldMs = 20_000;
/**
 * An honest command may wait so long on a busy machine, milliseconds: at first the target fills the kernel's buffers of all
 * sessions (1 to 3 s). Without buffers it waited 45 s, for the drop of the others.
 */
const honestMsMax = 15_000;

Deno.test(`${hostile} sessions with ${limits.commandsPerSessionMax} reads each that hardly read: memory is bounded, and one that reads is served`, async () => {
  await using target = await TargetProcess.start({
    volumes: [{ name: "vol0", size: "64MiB" }],
    diskSize: "256MiB",
  });
  const honest = await PlainInitiator.login(target.portals[0], target.iqn());
  const data = crypto.getRandomValues(new Uint8Array(65_536));
  const pattern = new Uint8Array(MiB);
  for (let at = 0; at < MiB; at += data.length) pattern.set(data, at);
  for (let lba = 0; lba < 8 * 2048; lba += 2048) await honest.write(lba, pattern);
  const before = await target.residentBytes();

  const readers: SlowReader[] = [];
  let asked = 0;
  try {
    while (readers.length < hostile) {
      const many = Math.min(16, hostile - readers.length);
      const logins = Array.from({ length: many }, () => SlowReader.login(target.portals[1], target.iqn()));
      readers.push(...await Promise.all(logins));
    }
    // Three of four read what was never written, which takes buffers; data of a mapped disk is lent instead.
    for (const [i, reader] of readers.entries()) {
      asked += await reader.ask(limits.commandsPerSessionMax, blocksOfRead, i % 4 === 3 ? 0 : unwrittenLba);
    }
    assert.equal(asked, hostile * limits.commandsPerSessionMax, "the window was not open to its whole depth");

    // Every second session reads a little now and then; the others never do.
    const end = Date.now() + heldMs;
    const trickle = Promise.all(
      readers.filter((_, i) => i % 2 === 0).map(async (reader) => {
        while (Date.now() < end) {
          await reader.take(16_384);
          await pause(1_000);
        }
      }),
    );
    trickle.catch(() => {}); // awaited below, unless something else fails first
    let served = 0;
    let longestMs = 0;
    while (Date.now() < end) {
      const begin = Date.now();
      if (served % 4 === 3) await honest.write(8 * 2048, pattern.subarray(0, 65_536));
      else if (served % 4 === 2) {
        const bytes = await honest.read(unwrittenLba, blocksOfRead);
        assert.ok(bytes.every((b) => b === 0));
      } else {
        const bytes = await honest.read(served % 64 * 128, served % 4 === 0 ? blocksOfRead : 8);
        assert.deepEqual(bytes, pattern.subarray(0, bytes.length));
      }
      served++;
      longestMs = Math.max(longestMs, Date.now() - begin);
      assert.ok(longestMs < honestMsMax, `an honest command took ${longestMs} ms (after ${served} others)`);
    }
    await trickle;
    const after = await target.residentBytes();
    const told = (n: number) => `${Math.round(n / MiB)} MiB`;
    console.log(
      `resident memory: ${told(before.now)} before, ${
        told(after.peak)
      } at most with ${asked} reads of 256 KiB asked; ` +
        `${served} honest commands in ${heldMs / 1000} s, the slowest took ${longestMs} ms`,
    );
    assert.ok(
      after.peak <= limits.residentBytesMax,
      `${told(after.peak)} resident, bound ${told(limits.residentBytesMax)}`,
    );
    assert.ok(served > heldMs / 1000, `${served} honest commands`);
  } finally {
    for (const reader of readers) reader.close();
  }
  await honest.close();
  assert.equal((await target.stop()).code, 0, target.log.slice(-2000));
});
