// Without this, whether a client notices that its session moves with its connection is unknown: three members in namespaces of
// their own, and a plain initiator in a fourth, connected to one of them.

import { strict as assert } from "node:assert";
import type { SessionReport } from "../../lib/mgmt/control.ts";
import { type Name, names, scene, sizeBytes } from "./live_group.ts";
import { iqnPrefix, pause } from "./target_process.ts";

/** An afternoon's run has more of both. */
const rounds = Number(Deno.env.get("PLIMSOLL_LIVE_MOVES") ?? 100);
const kills = Number(Deno.env.get("PLIMSOLL_LIVE_KILLS") ?? 2);

function stoodStill(times: number[]): string {
  times.sort((a, b) => a - b);
  const at = (share: number) => times[Math.floor((times.length - 1) * share)]?.toFixed(1);
  return `stood still: p50 ${at(0.5)} ms, p99 ${at(0.99)} ms, max ${at(1)} ms`;
}

for (const digests of [true, false]) {
  const moves = digests ? rounds : Math.ceil(rounds / 10);
  const how = digests ? "both digests" : "no digests, half of it writes";
  scene(`a busy connection (${how}) moves ${moves} times between three members, unnoticed`, async (group) => {
    // Lost without it: the promise itself.
    const running = group.client({ digests, writes: digests ? 0.3 : 0.5 });
    await group.present();
    await pause(500);
    const before = group.connections();
    assert.equal(before.length, 1);
    const times: number[] = [];
    for (let i = 0; i < moves; i++) {
      const from = await group.present();
      const to = names[(names.indexOf(from.name) + 1 + i % 2) % 3]!;
      const report = await group.move(from, to);
      assert.equal(report.how, "live", JSON.stringify(report));
      times.push(report.pauseMs!);
    }
    assert.deepEqual(group.connections(), before, "the client's TCP connection is another one");
    group.enough();
    const report = await running.report;
    console.log(
      stoodStill(times),
      JSON.stringify(report),
    );
    assert.deepEqual(report.wrong, []);
    assert.equal(report.logins, 0, "the connection was lost");
    assert.equal(report.again, 1, "a command failed, beside the one that tells of the login");
    assert.ok(report.reads + report.writes > 20 * moves);
  });
}

scene(
  "busy connections of other threads come home and move, all at once, unnoticed",
  async (group) => {
    // Lost without it: every machine with more than two cores, whose sessions are spread over threads.
    const volumes = ["vol", "v2", "v3", "v4", "v5", "v6"];
    for (const volume of volumes.slice(1)) await group.volume(volume);
    const running = volumes.map((volume) =>
      group.client({ host: volume, target: `${iqnPrefix}:${volume}`, depth: 8, writes: 0.5 }).report
    );
    const sessionsAt = async (name: Name) => (await group.api<SessionReport[]>(name, "sessions"))!;
    await group.until(async () => (await sessionsAt("alpha")).length === volumes.length, "all are logged in");
    await pause(300);
    const before = group.connections();
    const sessions = await sessionsAt("alpha");
    const answers = await Promise.all(sessions.map(({ id }) => group.move({ name: "alpha", id }, "beta")));
    assert.deepEqual(answers.map(({ how }) => how), volumes.map(() => "live"), JSON.stringify(answers));
    const said = (name: Name, what: RegExp) =>
      group.said(name).split("\n").filter((l) => what.test(l)).length;
    const home = said("alpha", / Session taken over from another thread/);
    assert.ok(home >= 3, `${home} sessions came from other threads`);
    // At its destination each goes where a login would be put.
    const out = () => Promise.resolve(said("beta", / Session given to another thread/) >= 3);
    await group.until(out, "they go out");
    await pause(300);
    for (const { id } of await sessionsAt("beta")) {
      assert.equal((await group.move({ name: "beta", id }, "alpha")).how, "live");
    }
    await pause(300);
    assert.deepEqual(group.connections(), before, "a client's TCP connection is another one");
    group.enough();
    for (const report of await Promise.all(running)) {
      assert.deepEqual(report.wrong, []);
      assert.equal(report.logins, 0, "a connection was lost");
      assert.equal(report.again, 1, "a command failed, beside the one that tells of the login");
    }
  },
  { workers: 3 },
);

scene(
  "stock initiators under way: qemu-img writes and compares, iscsi-perf reads, each on one connection",
  async (group) => {
    // Lost without it: a move that only our own initiator does not notice.
    const url = `iscsi://${group.machines.address("alpha")}:3260/${iqnPrefix}:vol/0`;
    const image = `${group.directory}/image.raw`;
    const bytes = new Uint8Array(sizeBytes);
    for (let i = 0; i < bytes.length; i += 65_536) crypto.getRandomValues(bytes.subarray(i, i + 65_536));
    await Deno.writeFile(image, bytes);
    const works = {
      "qemu-img convert": [
        "qemu-img",
        "convert",
        "-n",
        "-t",
        "none",
        "-r",
        "24M",
        "-f",
        "raw",
        "-O",
        "raw",
        image,
        url,
      ],
      "qemu-img compare": ["qemu-img", "compare", "-f", "raw", "-F", "raw", image, url],
      "iscsi-perf": ["iscsi-perf", "-m", "16", "-b", "16", "-t", "10", "-r", url],
    };
    for (const [what, command] of Object.entries(works)) {
      const logins = group.logins();
      const work = new Deno.Command("ip", {
        args: ["netns", "exec", group.machines.of("client"), ...command],
        stdout: "piped",
        stderr: "piped",
      }).output();
      let over = false;
      void work.finally(() => over = true);
      const times: number[] = [];
      while (!over) {
        const from = await group.holder();
        if (from === null) continue;
        const answer = await group.move(from, names[(names.indexOf(from.name) + 1) % 3]!);
        if (answer.how === "live") times.push(answer.pauseMs!);
      }
      const { code, stderr, stdout } = await work;
      const said = new TextDecoder().decode(stderr) + new TextDecoder().decode(stdout);
      assert.equal(code, 0, `${what}: ${said}`);
      assert.equal(group.logins() - logins, 1, `${what} has logged in again`);
      console.log(`${what}: moved ${times.length} times`, stoodStill(times));
      assert.ok(times.length > 0, `${what} was over before anything could move`);
    }
  },
);

const victims = {
  "the owner": "beta",
  "the member whose portal it is": "alpha",
  "the member it goes to": "gamma",
} as const;
for (const [what, victim] of Object.entries(victims)) {
  scene(`${what} is killed around a move: no wrong byte, and the client finishes`, async (group) => {
    // Lost without it: what is left of a connection when one of those that have to do with it is gone.
    const running = group.client({ depth: 8 });
    let moved = 0;
    for (let i = 0; i < kills; i++) {
      await group.until(async () => {
        const at = await group.present();
        if (at.name === "beta") return true;
        const answer = await group.move(at, "beta");
        if (answer.how !== "live") console.log(`to beta: ${JSON.stringify(answer)}`);
        return answer.how === "live";
      }, "it is at beta");
      await pause(300);
      const from = await group.present();
      // Before, in the middle of, or after it.
      const killed = pause(Math.random() * 250).then(() => group.end(victim, "SIGKILL"));
      if ((await group.move(from, "gamma")).how === "live") moved++;
      await killed;
      await group.start(victim);
    }
    await group.present();
    group.enough();
    const report = await running.report;
    console.log(`${moved} of ${kills} moves were done`, JSON.stringify(report));
    assert.deepEqual(report.wrong, []);
    assert.ok(report.reads + report.writes > 100);
    // Whoever had it before has nothing to do with it any more.
    if (victim === "beta") {
      assert.ok(report.logins <= kills - moved, "the death of a former owner was noticed");
    }
  });
}
