// Without this, what the parts of a short cut do together is unknown: two members in namespaces of their own, and a plain
// initiator in a third, connected to one of them.

import { strict as assert } from "node:assert";
import type { SessionReport, StatusReport } from "../../lib/mgmt/control.ts";
import { NamespacedGroup } from "./namespaced_group.ts";
import { namespacesMissing } from "./namespaces.ts";
import { runClient } from "./namespaced_client.ts";
import type { ClientOrder, ClientReport } from "./short_cut_client.ts";
import { iqnPrefix, pause } from "./target_process.ts";

const missing = namespacesMissing();
if (missing !== null) console.log(`left out: ${missing}`);
const MiB = 1024 * 1024;
const sizeBytes = 48 * MiB;
const names = ["alpha", "beta"];

class Group extends NamespacedGroup {
  /** `workers`: of each. */
  static async make(shortCut: string, workers: number): Promise<Group> {
    const members = names.map((name) => ({ name, lines: [shortCut], workers }));
    const group = new Group(["client", ...names], members, ["--log-level", "debug"]);
    await group.setUp(async () => {
      for (const name of names) await group.start(name);
      await group.volume("alpha", "vol", "48MiB", names);
    });
    return group;
  }

  client(order: Partial<ClientOrder>): { report: Promise<ClientReport> } {
    const whole: ClientOrder = {
      portal: { hostname: this.machines.address("alpha"), port: 3260 },
      target: `${iqnPrefix}:vol`,
      commands: 1000,
      depth: 16,
      digests: true,
      sizeBytes,
      writes: 0.3,
      ...order,
    };
    return { report: runClient(this.machines, "client", whole) };
  }

  /** Reads that took the short cut, of each session through alpha. */
  shortCutsOfEach(): number[] {
    return (this.api<SessionReport[]>("alpha", "sessions") ?? []).map(({ shortcut }) => shortcut);
  }

  shortCuts(): number {
    return this.shortCutsOfEach().reduce((sum, count) => sum + count, 0);
  }
}

function scene(name: string, shortCut: string, fn: (group: Group) => Promise<void>, workers = 1): void {
  Deno.test({ name, ignore: missing !== null }, async () => {
    await using group = await Group.make(shortCut, workers);
    try {
      await fn(group);
    } catch (error) {
      for (const name of names) console.log(`${name}:\n${(await group.end(name, "SIGTERM")).slice(-6000)}`);
      throw error;
    }
  });
}

/** So many times a member is killed; an afternoon's run has more. */
const kills = Number(Deno.env.get("PLIMSOLL_SHORT_CUT_KILLS") ?? 5);
const always = "short_cut_bytes = 0";

scene(
  "random reads and writes through one member, both digests, depth 16: every byte right",
  always,
  async (group) => {
    // Lost without it: the promise itself.
    let taken = 0;
    const watching = setInterval(() => taken = Math.max(taken, group.shortCuts()), 300);
    const report = await group.client({ commands: 10_000 }).report;
    clearInterval(watching);
    console.log(JSON.stringify(report), "short cuts seen", taken);
    assert.deepEqual(report.wrong, []);
    assert.equal(report.logins, 0, "the connection was lost");
    // Some 3,400 reads can take it; one refusal would be a rest of 10 s, which is longer than the test.
    assert.ok(taken > 1000, `${taken} short cuts`);
  },
);

scene(
  "sessions of I/O workers, two at a time: every byte right",
  always,
  async (group) => {
    // Lost without it: short cuts on every machine of more than two cores, where the owner's thread serves few sessions.
    await group.volume("alpha", "vol2", "48MiB", names);
    let each: number[] = [];
    let threads: number[] = [];
    const watching = setInterval(() => {
      const now = group.shortCutsOfEach();
      if (now.length < 2) return;
      each = now;
      const { workers } = group.api<StatusReport>("alpha", "status")!.engine;
      threads = workers!.map((connections, i) => Math.max(connections, threads[i] ?? 0));
    }, 300);
    const targets = ["vol", "vol2"].map((name) => `${iqnPrefix}:${name}`);
    const clients = targets.map((target) => group.client({ commands: 2000, depth: 8, target }));
    const reports = await Promise.all(clients.map(({ report }) => report));
    clearInterval(watching);
    console.log(JSON.stringify(reports), "short cuts seen", each, "connections of each thread", threads);
    for (const { wrong, logins } of reports) {
      assert.deepEqual(wrong, []);
      assert.equal(logins, 0, "a connection was lost");
    }
    assert.deepEqual(threads, [0, 1, 1], "two workers have them");
    for (const taken of each) assert.ok(taken > 100, `${taken} short cuts`);
    assert.equal(group.machines.exec("alpha", "nft", "list", "tables").match(/plimsoll/g)?.length, 1);
    await group.end("alpha", "SIGKILL");
    assert.equal(group.machines.exec("alpha", "nft", "list", "tables"), "", "rules outlive their process");
  },
  3,
);

for (const { percent, commands } of [{ percent: 1, commands: 10_000 }, { percent: 10, commands: 1000 }]) {
  scene(
    `the same, and ${percent} % of the packets at client and home are lost`,
    always,
    async (group) => {
      // Lost without it: retransmission across two owners of one connection, of whom one has never measured a round trip.
      const rules = `${group.directory}/loss.nft`;
      await Deno.writeTextFile(
        rules,
        `table inet loss {
      chain l {
        numgen random mod 100 < ${percent} counter drop
      }
      chain in {
        type filter hook input priority -400;
        tcp sport 3260 jump l
        tcp dport 3260 jump l
      }
    }
`,
      );
      for (const machine of ["client", "beta"]) group.machines.exec(machine, "nft", "-f", rules);
      let taken = 0;
      const watching = setInterval(() => taken = Math.max(taken, group.shortCuts()), 300);
      const report = await group.client({ commands }).report;
      clearInterval(watching);
      const lost = group.machines.exec("beta", "nft", "list", "table", "inet", "loss")
        .match(/packets (\d+)/)?.[1];
      console.log(JSON.stringify(report), "short cuts seen", taken, "packets lost at the home", lost);
      assert.deepEqual(report.wrong, []);
      // Of 10 % TCP itself may make pauses of more than the 2 s that the client's NOP-Out waits.
      if (percent === 1) assert.equal(report.logins, 0, "the connection was lost");
      assert.ok(taken > commands / 20, `${taken} short cuts`);
    },
  );
}

for (const victim of names) {
  const role = victim === "alpha" ? "entry" : "home";
  scene(
    `the ${role} is killed at random moments: no wrong byte, and the client finishes`,
    always,
    async (group) => {
      // Lost without it: what a kernel sends for a process that is gone.
      const running = group.client({ commands: 3000 * kills, depth: 8 });
      let over = false;
      void running.report.finally(() => over = true);
      let killed = 0;
      let taken = 0;
      let before = 0;
      while (killed < kills && !over) {
        await pause(300 + Math.random() * 700);
        const seen = group.shortCuts(); // since login
        taken += seen < before ? seen : seen - before;
        before = seen;
        await group.end(victim, "SIGKILL");
        group.machines.exec(victim, "nft", "flush", "ruleset"); // nothing that is safe depends on rules
        killed++;
        await group.start(victim);
      }
      const report = await running.report;
      console.log(JSON.stringify(report), "kills", killed, "short cuts seen", taken);
      assert.deepEqual(report.wrong, []);
      assert.equal(killed, kills);
      assert.ok(taken > 20, `${taken} short cuts`);
    },
  );
}

scene(
  "qemu-img and a capture: the home's interface sends what the entry's does not",
  'short_cut = "auto"',
  async (group) => {
    // Lost without it: a short cut that a stock initiator notices, or that relays all the same.
    const url = `iscsi://${group.machines.address("alpha")}:3260/${iqnPrefix}:vol/0`;
    const image = `${group.directory}/image.raw`;
    const bytes = new Uint8Array(sizeBytes);
    for (let i = 0; i < bytes.length; i += 65_536) crypto.getRandomValues(bytes.subarray(i, i + 65_536));
    await Deno.writeFile(image, bytes);
    const qemu = (...args: string[]) => group.machines.exec("client", "qemu-img", ...args);
    qemu("convert", "-n", "-t", "none", "-f", "raw", "-O", "raw", image, url);
    const before = names.map((name) => group.sentBytes(name));
    qemu("compare", "-f", "raw", "-F", "raw", image, url);
    const [entry, home] = names.map((name, i) => group.sentBytes(name) - before[i]!) as [number, number];
    console.log(`the entry sent ${entry} bytes, the home ${home}, of a volume of ${sizeBytes}`);
    // qemu-img reads 2 MiB at a time, which take longer than 0.4 ms on any interface of up to 40 Gbit/s.
    assert.ok(home > 0.4 * sizeBytes && entry < 0.6 * sizeBytes, "half of the pages are at each");
  },
);

scene(
  "a fast interface that has room: small answers are forwarded",
  'short_cut_bytes = "4KiB"',
  async (group) => {
    // Lost without it: a rule that nobody asks, and reads that are slower for it.
    const speed = group.machines.exec("alpha", "cat", "/sys/class/net/eth0/speed");
    assert.equal(Number(speed), 10_000, "a pair of virtual interfaces says so");
    let taken = 0;
    const watching = setInterval(() => taken = Math.max(taken, group.shortCuts()), 100);
    const report = await group.client({ commands: 1000, depth: 1 }).report; // of 4 to 96 KiB
    clearInterval(watching);
    console.log(JSON.stringify(report), "short cuts seen", taken);
    assert.deepEqual(report.wrong, []);
    assert.ok(taken < 100, `${taken} short cuts`);
  },
);
