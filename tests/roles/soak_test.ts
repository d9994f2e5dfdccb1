// Without these, a block of one write may turn up in another's place under load, aborts, cuts and a full disk: the soak
// found that within seconds. PLIMSOLL_SEED repeats a run, PLIMSOLL_SOAK lengthens it (commands, default 900).

import { strict as assert } from "node:assert";
import type { ClientOptions } from "../../lib/session/initiator/client.ts";
import type { Wishes } from "../../lib/session/negotiation.ts";
import { soak } from "./soak.ts";
import { MiB, World } from "./world.ts";

const seed = Number(Deno.env.get("PLIMSOLL_SEED") ?? 20_261_122);
const commands = Number(Deno.env.get("PLIMSOLL_SOAK") ?? 900);

/** Every way for data-out to come. */
const wishes: readonly Partial<Wishes>[] = [
  {},
  { initialR2t: true, immediateData: false },
  { maxBurstLength: 16_384, firstBurstLength: 8192, maxOutstandingR2t: 8 },
  { initialR2t: false, immediateData: true, maxRecvDataSegmentLength: 4096 },
  { initialR2t: false, immediateData: false },
];

Deno.test("soak: every block read is one that some order of the commands allows, on a disk that fills up", async () => {
  // The volume is larger than its disk; volumes beside it come, write and go, so that slots change hands.
  const tables = `[[disk]]\npath = "/d/a.img"\nsize = "32MiB"\n[[volume]]\nname = "vol0"\nsize = "40MiB"\n`;
  await using world = await World.start({ tables });
  const ticking = setInterval(() => world.clock.advance(200), 100);
  const options = (i: number): Partial<ClientOptions> & { raw: boolean } => ({
    initiatorName: `iqn.2026-11.net.plimsoll.test:soak${i}`,
    isid: 0x80_0000_000100 + i,
    headerDigest: i % 2 === 1,
    dataDigest: i % 3 === 1,
    wishes: wishes[i % wishes.length]!,
    raw: true,
  });
  let over = false;
  const { control } = world.target;
  const churn = (async () => {
    for (let n = 0; !over; n++) {
      await control.createVolume({ name: `churn${n}`, sizeBytes: 8 * MiB });
      const lun = await world.login(`churn${n}`);
      for (let page = 0; page < 4 && !over; page++) {
        const fresh = await lun.read(page * 2048, 256);
        if (typeof fresh === "string") assert.equal(fresh, "6/38/07"); // the disk is nearly full
        else assert.ok(fresh.every((b) => b === 0), "a new volume reads as zeroes");
        await lun.write(page * 2048 + n % 7, new Uint8Array(512 * 9).fill(0xee)); // there may be no room
      }
      await control.deleteVolume(`churn${n}`);
    }
  })();
  const running = soak({
    seed,
    commands,
    sessions: 5,
    depth: 6,
    volumeBlocks: 40 * MiB / 512,
    pageBlocks: 2048,
    transferBlocksMax: 8192,
    roomMayEnd: true,
    abortChance: 25,
    resetChance: 4,
    cutChance: 6,
    connect: async (i) => (await world.login("vol0", options(i))).client,
  });
  const ended = running.finally(() => over = true);
  const [report] = await Promise.all([ended, churn]).finally(() => clearInterval(ticking));
  assert.deepEqual(report.problems, []);
  assert.ok((report.counts["good"] ?? 0) > commands / 2, JSON.stringify(report.counts));
  assert.deepEqual(world.logged("error", /./), []);
});
