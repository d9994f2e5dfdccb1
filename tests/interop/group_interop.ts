// Without this, a volume over several members could be right in one process only, and wrong between three.

import { strict as assert } from "node:assert";
import type { RouteReport } from "../../lib/mgmt/control.ts";
import { cdb16, PlainInitiator, senseKey } from "./plain_initiator.ts";
import { api, pause, type TargetOptions, TargetProcess, until } from "./target_process.ts";
import { memberNames, route, served, ThreeMembers } from "./three_members.ts";
import { finish, interop, succeed } from "./tools.ts";

const MiB = 1024 * 1024;
const pageBlocks = 4 * MiB / 512;
const pages = 12;
const busy = 8;

/** Bytes that tell where they belong and which round wrote them. */
function pattern(page: number, round: number, bytes = 64 * 1024): Uint8Array {
  const out = new Uint8Array(bytes);
  for (let i = 0; i < bytes; i++) out[i] = (i * 13 + page * 31 + round * 101 + (i >> 9)) & 0xff;
  return out;
}

/** Unit attentions are taken and the command sent again: a login has one, and others tell of members that come and go. */
async function told(lun: PlainInitiator, cdb: number[], data: { write?: Uint8Array; readBytes?: number }) {
  for (;;) {
    const answer = await lun.command(cdb, data);
    if (answer.status !== 2 || senseKey(answer.sense) !== 6) return answer;
  }
}

const write = (lun: PlainInitiator, page: number, data: Uint8Array) =>
  told(lun, cdb16(0x8a, page * pageBlocks, data.length / 512), { write: data });
const read = (lun: PlainInitiator, page: number, bytes = 64 * 1024) =>
  told(lun, cdb16(0x88, page * pageBlocks, bytes / 512), { readBytes: bytes });

interop(
  "three members as processes: a volume over all of them, one killed and started again",
  ["qemu-img"],
  async () => {
    // Lost without it: what every client of a scale-out store relies on.
    const small: TargetOptions = { volumes: [], diskSize: "128MiB" };
    await using alpha = await TargetProcess.start({ ...small, workers: 2 });
    const shared = { ...small, ...alpha.fellowOptions };
    await using beta = await TargetProcess.start({ ...shared, member: "beta", workers: 2 });
    await using gamma = await TargetProcess.start({ ...shared, member: "gamma" });
    const members = [alpha, beta, gamma];
    const names = ["alpha", "beta", "gamma"];

    const created = await alpha.run(
      "volume",
      "create",
      "shared",
      "--size",
      "48MiB",
      "--members",
      names.join(","),
    );
    assert.equal(created.code, 0, created.stderr);
    await served("shared", members);
    const route = await api<RouteReport>(gamma, "/api/volumes/shared/route");
    assert.deepEqual(names.map((name) => route.pages!.filter((home) => home === name).length), [4, 4, 4]);
    const picture = await beta.run("route", "show", "shared");
    assert.equal(picture.code, 0, picture.stderr);
    assert.match(picture.stdout, /shared: 12 pages of 4 MiB, epoch 1/);
    assert.match(picture.stdout, /^ +0 {2}[ABC]{12}$/m);

    // Written through one, read through each; then a whole image by qemu-img, through two of them at a time.
    const luns = await Promise.all(
      members.map((member) => PlainInitiator.login(member.portals[0], member.iqn("shared"))),
    );
    const [one, two, three] = luns as [PlainInitiator, PlainInitiator, PlainInitiator];
    for (const lun of luns) await read(lun, 0); // takes the unit attention of the login
    for (let page = 0; page < pages; page++) {
      const written = await write(luns[page % 3]!, page, pattern(page, 0));
      assert.equal(written.status, 0, `page ${page}`);
    }
    for (const [i, lun] of luns.entries()) {
      for (let page = 0; page < pages; page++) {
        const data = await read(lun, page);
        assert.deepEqual([data.status, data.data], [0, pattern(page, 0)], `page ${page} through ${names[i]}`);
      }
    }
    // What must meet no transfer of the home's other threads: from one member, at another with threads of its own.
    const there = route.pages!.indexOf("alpha");
    const counter = new Uint8Array(512);
    assert.equal((await write(one, there, counter)).status, 0);
    const add = async (lun: PlainInitiator) => {
      for (let i = 0; i < 20; i++) {
        const seen = (await read(lun, there, 512)).data;
        const next = Uint8Array.from(seen);
        next[0]!++;
        const swap = { write: Uint8Array.of(...seen, ...next) };
        const { status } = await lun.command(cdb16(0x89, there * pageBlocks, 1), swap);
        if (status !== 0) i--;
      }
    };
    await Promise.all(luns.map(add));
    assert.equal((await read(two, there, 512)).data[0], 60, "60 increments, 20 through each member");
    await three.unmap(there * pageBlocks, pageBlocks);
    assert.ok((await read(one, there)).data.every((b) => b === 0));

    const image = `${alpha.directory}/image.raw`;
    const bytes = new Uint8Array(48 * MiB);
    for (let page = 0; page < pages; page++) bytes.set(pattern(page, 7, 4 * MiB), page * 4 * MiB);
    await Deno.writeFile(image, bytes);
    const convert = ["convert", "-n", "-t", "none", "-f", "raw", "-O", "raw", image, beta.url("shared")];
    const copied = await finish("qemu-img", convert, { secondsMax: 60 });
    assert.equal(copied.code, 0, copied.output);
    for (const member of [alpha, gamma]) {
      const same = await finish("qemu-img", [
        "compare",
        "-f",
        "raw",
        "-F",
        "raw",
        image,
        member.url("shared"),
      ], { secondsMax: 60 });
      assert.equal(same.code, 0, same.output);
    }

    // One is killed while two clients write: what was acknowledged stays, and its pages alone are BUSY.
    const acknowledged = new Map<number, number>();
    let stop = false;
    const statuses = new Set<number>();
    const writer = async (lun: PlainInitiator, first: number) => {
      for (let round = 1; !stop; round++) {
        for (let page = first; page < pages && !stop; page += 2) {
          for (;;) {
            const { status } = await write(lun, page, pattern(page, round));
            statuses.add(status);
            if (status === 0) acknowledged.set(page, round);
            if (status === 0 || stop) break;
          }
        }
      }
    };
    const writers = [writer(one, 0), writer(three, 1)];
    await pause(500);
    await beta.stop("SIGKILL");
    await until(() => Promise.resolve(statuses.has(busy)), "beta's pages are BUSY", 40_000);
    const [own, other] = await Promise.all(
      [alpha, gamma].map((m) => PlainInitiator.login(m.portals[0], m.iqn("shared"))),
    );
    for (const lun of [own!, other!]) {
      await read(lun, route.pages!.indexOf("alpha")); // takes the unit attention
      for (const [page, home] of route.pages!.entries()) {
        const { status } = await read(lun, page);
        assert.equal(status, home === "beta" ? busy : 0, `page ${page} of ${home}`);
      }
    }
    await beta.restart();
    const backMs = await until(
      async () => (await read(own!, route.pages!.indexOf("beta"))).status === 0,
      "beta is back",
    );
    await pause(500);
    stop = true;
    await Promise.all(writers);
    assert.deepEqual([...statuses].sort(), [0, busy], "nothing but GOOD and BUSY was seen");
    const anew = await PlainInitiator.login(beta.portals[0], beta.iqn("shared"));
    await read(anew, 0);
    for (const lun of [own!, other!, anew]) {
      for (const [page, round] of acknowledged) {
        const data = await read(lun, page);
        assert.equal(data.status, 0);
        // A write that was on its way when the writer stopped may have been carried out too.
        const next = pattern(page, round + 1);
        const newer = data.data.every((b, i) => b === next[i]);
        if (!newer) assert.deepEqual(data.data, pattern(page, round), `page ${page}`);
      }
    }
    console.log(`beta's pages were back ${backMs} ms after its start`);
    for (const lun of [...luns.filter((lun) => lun !== two), own!, other!, anew]) await lun.close();
    for (const member of members) assert.equal((await member.stop()).code, 0, member.log);
  },
);

Deno.test("a home that is paused: its pages are BUSY, no write is lost or late, and all is back when it goes on", async () => {
  // Lost without it: a write that was called BUSY and is carried out by the paused process after the client's next one.
  const small: TargetOptions = { volumes: [], diskSize: "128MiB" };
  await using alpha = await TargetProcess.start(small);
  await using beta = await TargetProcess.start({
    ...small,
    member: "beta",
    ...alpha.fellowOptions,
  });
  const created = await alpha.run("volume", "create", "far", "--size", "16MiB", "--members", "beta");
  assert.equal(created.code, 0, created.stderr);
  await served("far", [alpha, beta]);
  const luns = await Promise.all(
    [0, 1, 2, 3].map(() => PlainInitiator.login(alpha.portals[0], alpha.iqn("far"))),
  );
  const statuses = new Map<number, number>();
  let stop = false;
  // Each has a page of its own, writes rounds one after the other, and reads back what was acknowledged.
  const work = async (lun: PlainInitiator, page: number) => {
    await read(lun, page); // takes the unit attention
    for (let round = 1; !stop; round++) {
      let status = -1;
      while (status !== 0 && !stop) {
        status = (await write(lun, page, pattern(page, round, 4096))).status;
        statuses.set(status, (statuses.get(status) ?? 0) + 1);
        if (status !== 0) round++; // another value: a late one would show
      }
      if (status !== 0) return;
      const back = await read(lun, page, 4096);
      if (back.status === 0) {
        assert.deepEqual(back.data, pattern(page, round, 4096), `page ${page}, round ${round}`);
      }
    }
  };
  const workers = luns.map(work);
  await pause(300);
  for (const seconds of [2, 16]) {
    const before = statuses.get(busy) ?? 0;
    Deno.kill(beta.pid, "SIGSTOP");
    await pause(seconds * 1000);
    Deno.kill(beta.pid, "SIGCONT");
    const good = statuses.get(0)!;
    await until(() => Promise.resolve(statuses.get(0)! > good + 20), "writes go on");
    if (seconds > 10) assert.ok((statuses.get(busy) ?? 0) > before, "BUSY was seen");
  }
  stop = true;
  await Promise.all(workers);
  assert.deepEqual([...statuses.keys()].sort(), [0, busy]);
  for (const lun of luns) await lun.close();
  for (const member of [alpha, beta]) assert.equal((await member.stop()).code, 0, member.log);
});

interop("what qemu-img writes through one of three members on etcd is read through the others", [
  "qemu-img",
  "etcd",
], async () => {
  await using group = await ThreeMembers.start("etcd", { diskSize: "256MiB" });
  await group.createVolume("wide", "96MiB");
  const image = `${group.members[0]!.directory}/image`;
  await succeed("sh", ["-c", `head -c 96M /dev/urandom >${image}`], { secondsMax: 60 });
  const [first, ...others] = group.members.map((member) => member.url("wide"));
  await succeed("qemu-img", ["convert", "-n", "-f", "raw", "-O", "raw", image, first!], { secondsMax: 120 });
  for (const url of others) {
    await succeed("qemu-img", ["compare", "-f", "raw", "-F", "raw", image, url], { secondsMax: 120 });
  }
  for (const member of group.members) {
    const { pages: homes } = (await route(member, "wide"))!;
    assert.deepEqual([...new Set(homes)].sort(), [...memberNames], "homes on all three");
    const written = async () => Object.values((await route(member, "wide"))!.allocated); // told now and then
    await until(async () => (await written()).every((count) => count === 8), "24 pages have data, 8 each");
  }
  await group.stop();
});
