// The process with three data-plane threads: without these, sessions in different threads could see different volumes,
// reservations or sizes, or not end with the member.

import { strict as assert } from "node:assert";
import { PortableNetwork } from "../../lib/io/portable_network.ts";
import { systemClock } from "../../lib/io/system_clock.ts";
import { systemRandom } from "../../lib/io/system_random.ts";
import type { SessionReport, StatusReport } from "../../lib/mgmt/control.ts";
import { type ClientOptions, InitiatorClient } from "../../lib/session/initiator/client.ts";
import { pause, TargetProcess } from "../interop/target_process.ts";
import { blockBytes, Lun, pattern, verdict } from "../roles/scsi.ts";

const ignore = Deno.build.os !== "linux";
const pageBlocks = 4 * 1024 * 1024 / blockBytes;
const writeExclusive = 1;
const logicalUnitReset = 5;

class Scene implements AsyncDisposable {
  private constructor(readonly target: TargetProcess) {}

  static async start(): Promise<Scene> {
    return new Scene(
      await TargetProcess.start({
        engine: "auto",
        workers: 3,
        diskSize: "256MiB",
        volumes: [{ name: "vol0", size: "64MiB" }],
      }),
    );
  }

  /** With the unit attention of the login taken. */
  async login(initiator: string, options: Partial<ClientOptions> = {}, volume = "vol0"): Promise<Lun> {
    const lun = await this.connect(initiator, options, volume);
    assert.equal(await lun.testUnitReady(), "6/29/00");
    return lun;
  }

  async connect(initiator: string, options: Partial<ClientOptions> = {}, volume = "vol0"): Promise<Lun> {
    const [hostname, port] = this.target.portals[0].split(":");
    const client = await InitiatorClient.connect(new PortableNetwork(), systemClock, systemRandom, {
      portal: { hostname: hostname!, port: Number(port) },
      initiatorName: `iqn.2026-11.net.plimsoll.test:${initiator}`,
      targetName: this.target.iqn(volume),
      ...options,
    });
    return new Lun(client);
  }

  /** Three sessions, each in another thread: the one with the fewest is taken, the owner's last. */
  logins(volume = "vol0"): Promise<Lun[]> {
    return inOrder(["a", "b", "c"], (name) => this.login(name, {}, volume));
  }

  async plimsoll(...args: string[]): Promise<string> {
    const { code, stdout, stderr } = await this.target.run(...args, "--config", this.target.configuration);
    assert.equal(code, 0, stderr);
    return stdout;
  }

  async status(): Promise<StatusReport> {
    return JSON.parse(await this.plimsoll("status", "--json"));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.target[Symbol.asyncDispose]();
  }
}

async function inOrder<A, B>(items: readonly A[], work: (item: A) => Promise<B>): Promise<B[]> {
  const out: B[] = [];
  for (const item of items) out.push(await work(item));
  return out;
}

function same(got: Uint8Array | string, wanted: Uint8Array, what: string): void {
  assert.ok(typeof got !== "string", `${what}: ${got}`);
  assert.ok(got.length === wanted.length && got.every((b, i) => b === wanted[i]), `${what}: wrong bytes`);
}

Deno.test({
  name: "connections spread over the threads, and each sees what the others write",
  ignore,
  fn: async () => {
    await using scene = await Scene.start();
    const luns = await scene.logins();
    assert.deepEqual((await scene.status()).engine.workers, [1, 1, 1]);
    for (const [i, lun] of luns.entries()) {
      const blocks = [1, 64, 4096, 8192][i]!;
      for (const lba of [i * 16, pageBlocks - 7 + i * pageBlocks]) {
        for (const round of [1, 2]) { // the first makes pages, the second finds them
          const data = pattern(blocks, i * 10 + round);
          assert.equal(await lun.write(lba, data), "good");
          for (const other of luns) same(await other.read(lba, blocks), data, `${i} at ${lba}`);
        }
      }
    }
    assert.equal(await luns[1]!.sync(), "good");
    const echo = await luns[0]!.client.ping(new Uint8Array([1, 2, 3]));
    assert.deepEqual(echo, new Uint8Array([1, 2, 3]));
    const targets = await luns[0]!.client.sendTargets("");
    assert.equal(targets[0]!.name, scene.target.iqn());
    assert.ok(targets[0]!.addresses.some((a) => a.startsWith(scene.target.portals[1])));
    await pause(250); // counters are shown ten times a second
    const sessions: SessionReport[] = JSON.parse(await scene.plimsoll("session", "list", "--json"));
    assert.equal(sessions.length, 3);
    for (const { commands, bytes } of sessions) {
      assert.ok(commands > 10 && bytes > 1024, `${commands} ${bytes}`);
    }

    // Reinstatement, and the replacement of a connection, of sessions in other threads.
    const isid = 0x800000123456;
    const old = await scene.login("again", { isid });
    const next = await scene.login("again", { isid });
    assert.equal((await old.client.closed).kind, "lost");
    assert.equal(await next.testUnitReady(), "good");
    const joined = await scene.connect("again", { isid, rejoin: next.client.session });
    assert.equal((await next.client.closed).kind, "lost");
    assert.equal(await joined.testUnitReady(), "good", "it is the same nexus");
    assert.equal(await joined.write(1, pattern(1, 5)), "good");

    for (const { client } of luns) assert.equal(await client.logout(), 0);
    const ending = await scene.target.stop();
    assert.deepEqual([ending.code, ending.signal], [0, null], scene.target.log);
  },
});

Deno.test({
  name: "a reservation, a reset and a new size hold in every thread at once",
  ignore,
  fn: async () => {
    await using scene = await Scene.start();
    const [a, b, c] = await scene.logins() as [Lun, Lun, Lun];
    assert.equal(await b.write(0, pattern(8, 1)), "good");
    // b and c write without a pause, each to its own block; a fences them off.
    let fenced = false;
    const wrong: string[] = [];
    let refused = 0;
    let written = 0;
    const busy = [b, c].flatMap((lun, i) =>
      [0, 1, 2, 3].map(async (k) => {
        for (let n = 0; refused < 2000; n++) {
          const after = fenced;
          const got = await lun.write(i * 4 + k, pattern(1, n));
          if (got === "conflict") refused++;
          else if (got === "good") written++;
          if (after && got !== "conflict") wrong.push(got);
          if (wrong.length > 0) return;
        }
      })
    );
    while (written < 200) await pause(1);
    assert.equal(await a.reserveOut(0, 0, 7), "good");
    assert.equal(await a.reserveOut(1, 7, 0, writeExclusive), "good");
    fenced = true;
    const at = await a.read(0, 8);
    await Promise.all(busy);
    assert.deepEqual(wrong, []);
    same(await a.read(0, 8), at as Uint8Array, "what was there when the reservation was answered");
    assert.equal(await a.reserveOut(3, 7), "good"); // CLEAR
    for (const lun of [b, c]) assert.deepEqual(await lun.attentions(), []);
    assert.equal(await b.write(0, pattern(1, 9)), "good");

    assert.equal(await a.client.taskManagement(logicalUnitReset), 0);
    for (const lun of [a, b, c]) assert.deepEqual(await lun.attentions(), ["6/29/03"]);
    await scene.plimsoll("volume", "resize", "vol0", "128MiB");
    for (const lun of [a, b, c]) {
      assert.equal(
        verdict(await lun.client.command([0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0], { dataInMax: 512 })),
        "6/2a/09",
      );
      assert.deepEqual(await lun.attentions(), []);
      assert.equal(await lun.capacity(), 128 * 1024 * 1024 / blockBytes);
      assert.equal(await lun.write(100 * 1024 * 1024 / blockBytes, pattern(8, 3)), "good");
      same(await lun.read(100 * 1024 * 1024 / blockBytes, 8), pattern(8, 3), "beyond the old end");
    }
  },
});

Deno.test({
  name: "increments by COMPARE AND WRITE from three threads all count, beside writes and unmaps",
  ignore,
  fn: async () => {
    await using scene = await Scene.start();
    const luns = await scene.logins();
    assert.equal(await luns[0]!.write(0, new Uint8Array(blockBytes)), "good");
    const counterOf = (block: Uint8Array) => new DataView(block.buffer, block.byteOffset).getUint32(0);
    const rounds = 150;
    let counted = 0;
    let missed = 0;
    const increments = luns.flatMap((lun) =>
      [1, 2].map(async () => {
        for (let n = 0; n < rounds;) {
          const now = await lun.read(0, 1) as Uint8Array;
          const data = new Uint8Array(2 * blockBytes);
          data.set(now);
          new DataView(data.buffer).setUint32(blockBytes, counterOf(now) + 1);
          const cdb = [0x89, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0];
          const got = verdict(await lun.client.command(cdb, { dataOut: data }));
          if (got === "good") counted++, n++;
          else if (got === "e/1d/00") missed++;
          else throw new Error(got);
        }
      })
    );
    let over = false;
    const beside = luns.map(async (lun, i) => {
      for (let n = 0; !over; n++) {
        assert.equal(await lun.write(1 + i, pattern(1, n)), "good");
        const page = (1 + n % 3) * pageBlocks;
        assert.equal(await lun.write(page + i, pattern(1, i)), "good");
        if (n % 5 === i) assert.equal(await lun.unmap(page, pageBlocks), "good");
        const got = await lun.read(page + i, 1) as Uint8Array;
        const zero = got.every((byte) => byte === 0);
        if (!zero) same(got, pattern(1, i), "a page shows its own bytes or zeroes");
      }
    });
    await Promise.all(increments);
    over = true;
    await Promise.all(beside);
    assert.equal(counted, 6 * rounds);
    assert.ok(missed > 0, "they never met: nothing was tested");
    assert.equal(counterOf(await luns[1]!.read(0, 1) as Uint8Array), counted);
  },
});

Deno.test({
  name: "a volume is deleted while every thread uses it, and the next one shows none of its bytes",
  ignore,
  fn: async () => {
    await using scene = await Scene.start();
    for (const name of ["one", "two"]) {
      await scene.plimsoll("volume", "create", name, "--size", "64MiB");
      const luns = await scene.logins(name);
      for (let page = 0; page < 16; page++) {
        same(
          await luns[0]!.read(page * pageBlocks, 64),
          new Uint8Array(64 * blockBytes),
          `page ${page} of ${name}`,
        );
      }
      const secret = pattern(2048, name.length);
      for (let page = 0; page < 16; page++) {
        assert.equal(await luns[page % 3]!.write(page * pageBlocks, secret), "good");
      }
      let commands = 0;
      const busy = luns.map(async (lun) => {
        for (let n = 0;; n++) {
          const lba = n % 16 * pageBlocks;
          const got = n % 2 === 0 ? await lun.read(lba, 256) : await lun.write(lba, secret);
          if (typeof got === "string" && got !== "good") return got;
          commands++;
        }
      });
      while (commands < 100) await pause(1);
      await scene.plimsoll("volume", "delete", name, "--yes");
      for (const end of await Promise.all(busy)) assert.match(end, /^(lost|5\/25\/00|aborted|status 64)/);
      for (const { client } of luns) assert.equal((await client.closed).kind, "lost");
    }
    const status = await scene.status();
    assert.deepEqual(status.engine.workers, [0, 0, 0]);
    assert.equal(status.disks[0]!.allocatedBytes, 0);
    const { code } = await scene.target.stop();
    assert.equal(code, 0, scene.target.log);
    assert.equal((await scene.target.run("disk", "check", scene.target.disk)).code, 0);
  },
});
