// Without this, our initiator would be known to agree with our own target only, mistakes included.

import { strict as assert } from "node:assert";
import { systemClock } from "../../lib/io/system_clock.ts";
import { PortableNetwork } from "../../lib/io/portable_network.ts";
import { systemRandom } from "../../lib/io/system_random.ts";
import { type ClientOptions, InitiatorClient, LoginError } from "../../lib/session/initiator/mod.ts";
import {
  assertSameBytes,
  blockBytes,
  pattern,
  read10,
  settle,
  testUnitReady,
  within,
  write10,
  writeAndReadBack,
} from "./cdbs.ts";
import { interop } from "../interop/tools.ts";
import { startTgtd, tgtdOutgoing, tgtdUser } from "./tgtd.ts";

const network = new PortableNetwork();
const initiatorName = "iqn.2026-11.net.plimsoll.test:initiator";
const lun = 1;

function connect(options: Omit<ClientOptions, "initiatorName">): Promise<InitiatorClient> {
  return InitiatorClient.connect(network, systemClock, systemRandom, {
    initiatorName,
    chapAlgorithms: [5],
    ...options,
  });
}

interop("our initiator and tgtd", ["tgtd", "tgtadm"], async (t) => {
  const step = (name: string, run: () => Promise<void>) => t.step(name, () => within(60_000, run()));
  const tgtd = await startTgtd();
  const { portal } = tgtd;
  try {
    await step("INQUIRY, residuals, sense, ping and logout", async () => {
      const client = await connect({ portal, targetName: tgtd.open });
      const inquiry = await client.command([0x12, 0, 0, 0, 255, 0], { lun, dataInMax: 255 });
      assert.equal(inquiry.status, 0);
      assert.equal(new TextDecoder().decode(inquiry.data.subarray(8, 11)), "IET");
      assert.equal(inquiry.residual, 255 - inquiry.data.length);
      await settle(client, lun);
      const beyond = await client.command(read10(0x7fff_ffff, 1), { lun, dataInMax: blockBytes });
      assert.equal(beyond.status, 2);
      assert.equal(beyond.sense[2]! & 15, 5, "ILLEGAL REQUEST");
      assert.equal(beyond.sense[12], 0x21, "LBA out of range");
      assert.deepEqual(await client.ping(), new Uint8Array(0));
      assert.equal(await client.logout(), 0);
      assert.deepEqual(await client.closed, { kind: "loggedOut" });
      assert.equal((await client.command(testUnitReady, { lun })).outcome, "notSent");
    });

    for (const [headerDigest, dataDigest] of [[false, false], [true, false], [false, true], [true, true]]) {
      for (
        const wishes of [{}, { initialR2t: true, immediateData: false }, {
          firstBurstLength: 4096,
          maxBurstLength: 8192,
        }]
      ) {
        const name = `header digest ${headerDigest}, data digest ${dataDigest}, ${JSON.stringify(wishes)}`;
        await step(`data of every kind, ${name}`, async () => {
          const client = await connect({
            portal,
            targetName: tgtd.digests,
            headerDigest: headerDigest!,
            dataDigest: dataDigest!,
            wishes,
          });
          assert.equal(client.session.parameters.headerDigest, headerDigest ? "CRC32C" : "None");
          assert.equal(client.session.parameters.dataDigest, dataDigest ? "CRC32C" : "None");
          await settle(client, lun);
          await writeAndReadBack(client, lun, 512, 0);
          await writeAndReadBack(client, lun, 64 * 1024, 1);
          await writeAndReadBack(client, lun, 1024 * 1024, 2);
          await Promise.all(
            Array.from({ length: 8 }, (_, i) => writeAndReadBack(client, lun, 128 * 1024, i)),
          );
          assert.equal(await client.logout(), 0);
        });
      }
    }

    await step("more commands than the window, in flight together", async () => {
      const client = await connect({ portal, targetName: tgtd.open });
      await settle(client, lun);
      const data = pattern(512 * 256, 77);
      const writes = Array.from(
        { length: 256 },
        (_, i) => client.command(write10(i, 1), { lun, dataOut: data.subarray(i * 512, (i + 1) * 512) }),
      );
      for (const write of await Promise.all(writes)) assert.equal(write.status, 0);
      const reads = Array.from(
        { length: 256 },
        (_, i) => client.command(read10(i, 1), { lun, dataInMax: 512 }),
      );
      for (const [i, read] of (await Promise.all(reads)).entries()) {
        assertSameBytes(read.data, data.subarray(i * 512, (i + 1) * 512));
      }
      await client.logout();
    });

    await step("task management", async () => {
      const client = await connect({ portal, targetName: tgtd.open });
      await settle(client, lun);
      assert.equal(await client.taskManagement(5, lun), 0, "LOGICAL UNIT RESET");
      await settle(client, lun);
      await client.logout();
    });

    await step("discovery lists the targets; SendTargets in full feature phase lists one", async () => {
      const discovery = await connect({ portal });
      const targets = await discovery.sendTargets();
      assert.deepEqual(
        targets.map((x) => x.name).toSorted(),
        [tgtd.open, tgtd.chap, tgtd.mutual, tgtd.digests].toSorted(),
      );
      assert.ok(targets.every((x) => x.addresses[0]!.startsWith(`127.0.0.1:${portal.port},`)));
      assert.equal(await discovery.logout(), 0);
    });

    await step("CHAP, one way and mutual", async () => {
      const one = await connect({ portal, targetName: tgtd.chap, chap: tgtdUser });
      await settle(one, lun);
      await writeAndReadBack(one, lun, 4096, 3);
      await one.logout();
      const both = await connect({
        portal,
        targetName: tgtd.mutual,
        chap: tgtdUser,
        mutual: tgtdOutgoing,
      });
      await settle(both, lun);
      await writeAndReadBack(both, lun, 4096, 4);
      await both.logout();
    });

    await step(
      "CHAP with a wrong secret, none, and a target that proves nothing or something else",
      async () => {
        const wrong = { user: "user1", secret: new TextEncoder().encode("wrong-wrong-1") };
        const rejects = async (options: Omit<ClientOptions, "initiatorName" | "portal">, reason: RegExp) => {
          await assert.rejects(connect({ portal, ...options }), (error: LoginError) => {
            assert.ok(error instanceof LoginError);
            assert.match(error.message, reason);
            return true;
          });
        };
        await rejects({ targetName: tgtd.chap, chap: wrong }, /status 0201h \(Authentication failure\)/);
        await rejects({ targetName: tgtd.chap }, /status 02/);
        await rejects(
          { targetName: tgtd.chap, chap: tgtdUser, mutual: tgtdOutgoing },
          /status 0201h|did not prove itself/,
        );
        await rejects({
          targetName: tgtd.mutual,
          chap: tgtdUser,
          mutual: { ...tgtdOutgoing, secret: wrong.secret },
        }, /the target's CHAP name or response is wrong/);
        await rejects({ targetName: "iqn.2026-11.net.plimsoll.peer:nobody" }, /status 0203h \(Not found\)/);
      },
    );

    await step("a lost connection fails what is in flight, and says so", async () => {
      const client = await connect({ portal, targetName: tgtd.open });
      await settle(client, lun);
      const pending = client.command(read10(0, 2048), { lun, dataInMax: 1024 * 1024 });
      await client.abort();
      const result = await pending;
      assert.equal(result.outcome, "lost");
      assert.match(result.reason, /aborted by the caller/);
    });
  } finally {
    await tgtd.stop();
  }
});
