// Without these, the host agent could send pages to the wrong member for ever, lose writes that it was told are durable, take a
// disk away from its user, or be stuck after one command that failed.

import { strict as assert } from "node:assert";
import type { ProgramEnd } from "../../../lib/base/host_system.ts";
import { alpha, beta, device, gamma, identifier, MiB, other, Scene, secret, wanted } from "./switch_scene.ts";

Deno.test("every region goes to its page's member, the device follows pages that move, and all goes at the end", async () => {
  const scene = new Scene();
  await scene.want(wanted("abcabc"));
  assert.equal(scene.goes(), "abcabc");
  assert.deepEqual([...scene.kernel.maps.keys()].sort(), [
    "plimsoll-vol0",
    "plimsoll-vol0:alpha",
    "plimsoll-vol0:beta",
    "plimsoll-vol0:gamma",
  ]);
  // Its own path first, the others' behind it.
  assert.match(
    scene.kernel.maps.get("plimsoll-vol0:beta")!.table,
    /1 1 8:32 1 service-time 0 2 1 8:16 1 8:48 1$/,
  );

  const before = scene.kernel.calls.length;
  await scene.want(wanted("bbcaba"));
  assert.equal(scene.goes(), "bbcaba");
  const said = scene.kernel.calls.slice(before).filter((call) => /create|load|message/.test(call));
  assert.deepEqual(said, [`dmsetup message ${device} 0 set_region_mappings 0:1 5:0`]);

  const [idle, quiet] = [scene.kernel.calls.length, scene.log.length];
  await scene.pass(4_000);
  assert.ok(
    scene.kernel.calls.slice(idle).every((call) => /^dmsetup (info|status) /.test(call)),
    "at rest it only looks",
  );
  assert.equal(scene.log.length, quiet);

  assert.equal(await scene.stop(false), true);
  assert.deepEqual([scene.kernel.maps.size, scene.kernel.sessions.size], [0, 0]);
  assert.deepEqual([...scene.kernel.files.keys()], []);
  assert.ok(
    ![...scene.kernel.calls, ...scene.log].some((line) => line.includes(secret)),
    "the secret is shown",
  );
});

Deno.test("members that come get a leg, and those without pages lose leg and session", async () => {
  const scene = new Scene();
  await scene.want(wanted("aabbaa"));
  assert.equal(scene.kernel.sessions.size, 2);
  await scene.want(wanted("aabbcc"));
  await scene.pass(2_000);
  assert.equal(scene.goes(), "aabbcc");
  await scene.want(wanted("bbbbcc"));
  assert.equal(scene.goes(), "bbbbcc");
  assert.deepEqual([...scene.kernel.sessions.values()].map(({ portal }) => portal), [beta, gamma]);
  assert.ok(!scene.kernel.maps.has("plimsoll-vol0:alpha"));
});

Deno.test("a member that is away: its pages go to others, and to it again when it is back; without any path they wait 60 s", async () => {
  const scene = new Scene();
  await scene.want(wanted("abcabc"));
  scene.kernel.lose(beta);
  assert.match(scene.goes(), /^a[ac]ca[ac]c$/);
  // What is said twice, since the first time it was not heard.
  scene.kernel.instead = (command) =>
    command.includes("switch_group") ? { kind: "killed", why: "it has not ended" } : null;
  scene.kernel.portals.get(beta)!.up = true;
  await scene.pass(4_000);
  assert.match(scene.goes(), /^a[ac]ca[ac]c$/);
  scene.kernel.instead = () => null;
  await scene.pass(2_000);
  assert.equal(scene.goes(), "abcabc");
  scene.kernel.lose(beta);
  await scene.want(wanted("abcabc", {}, ["beta"]));
  await scene.pass(10_000);
  assert.match(scene.goes(), /^a[ac]ca[ac]c$/);
  assert.equal(scene.kernel.sessions.size, 3, "the kernel keeps on trying by itself");
  scene.kernel.portals.get(beta)!.up = true;
  await scene.want(wanted("abcabc"));
  await scene.pass(2_000);
  assert.equal(scene.goes(), "abcabc");

  for (const portal of [alpha, beta, gamma]) scene.kernel.lose(portal);
  await scene.pass(30_000);
  assert.equal(scene.goes(), " waits ".repeat(6));
  assert.equal(scene.device.report().device?.readOnly, false, "nobody knows of a disk that it is protected");
  await scene.pass(40_000);
  assert.equal(scene.goes(), " fails ".repeat(6));
  for (const portal of [alpha, beta, gamma]) scene.kernel.portals.get(portal)!.up = true;
  await scene.pass(4_000);
  assert.equal(scene.goes(), "abcabc");
  assert.ok([...scene.kernel.maps.values()].every(({ queues }) => queues));
});

Deno.test("a change that waits for a path keeps no path from coming back", async () => {
  const scene = new Scene(4);
  await scene.want(wanted("abab"));
  for (const portal of scene.kernel.portals.values()) portal.sectors = 6 * MiB / 512;
  // The kernel suspends the switch, and waits for what is in flight below it.
  let hang: (end: ProgramEnd) => void = () => {};
  scene.kernel.instead = (command) =>
    /resume .* plimsoll-vol0$/.test(command) ? new Promise((resolve) => hang = resolve) : null;
  await scene.want(wanted("ababba"));
  for (const portal of [alpha, beta]) scene.kernel.lose(portal);
  await scene.pass(4_000);
  for (const portal of [alpha, beta]) scene.kernel.portals.get(portal)!.up = true;
  await scene.pass(4_000);
  assert.equal(scene.goes(), "abab", "while the change still waits");
  scene.kernel.instead = () => null;
  hang({ kind: "killed", why: "it has not ended after 30000 ms" });
  await scene.pass(4_000);
  assert.equal(scene.goes(), "ababba");
});

Deno.test("a write cache is refused, with the command that switches it off; one that is switched on later is told of", async () => {
  const scene = new Scene();
  await scene.want(wanted("abab", { writeCache: true }));
  await scene.pass(5_000);
  assert.equal(scene.kernel.maps.size, 0);
  assert.equal(scene.kernel.sessions.size, 0);
  assert.equal(scene.warnings(/plimsoll volume set vol0 --write-cache off/), 1);
  // The kernel may have seen the disk when it still had its cache: it looks again.
  for (const portal of [alpha, beta]) scene.kernel.portals.get(portal)!.writeThrough = false;
  await scene.want(wanted("abab"));
  await scene.pass(2_000);
  assert.equal(scene.kernel.maps.size, 0);
  assert.equal(scene.warnings(/the kernel takes it to have a write cache/), 1);
  for (const portal of [alpha, beta]) scene.kernel.portals.get(portal)!.writeThrough = true;
  await scene.pass(2_000);
  assert.equal(scene.goes().slice(0, 4), "abab");
  await scene.want(wanted("bbab", { writeCache: true }));
  assert.equal(scene.goes().slice(0, 4), "bbab", "it is kept in step all the same");
  assert.equal(scene.warnings(/Writes may be lost/), 1);
});

Deno.test("a device that is in use stays with all that is below it; one that another owns is not touched", async () => {
  const scene = new Scene();
  await scene.want(wanted("abcabc"));
  scene.kernel.maps.get(device)!.users = 1;
  assert.equal(await scene.stop(false), false);
  assert.ok(!scene.kernel.calls.some((call) => / remove |--logout/.test(call)), "it is left alone");
  assert.equal(scene.warnings(/error Cannot take device "plimsoll-vol0" down: it is in use/), 1);
  assert.deepEqual([scene.kernel.maps.size, scene.kernel.sessions.size], [4, 3]);

  // The next process goes on with it, whatever has happened meanwhile.
  scene.again();
  await scene.want(wanted("cbacba"));
  assert.equal(scene.goes(), "cbacba");
  assert.equal(await scene.stop(true), true);
  assert.deepEqual([scene.kernel.maps.size, scene.kernel.sessions.size], [4, 3], "kept");

  scene.kernel.maps.get(device)!.users = 0;
  scene.again();
  assert.equal(
    await scene.stop(false),
    true,
    "the group was never reached, and what was left is known by its name",
  );
  assert.deepEqual([scene.kernel.maps.size, scene.kernel.sessions.size], [0, 0]);

  const mine = { name: device, uuid: "LVM-abc", minor: 77, table: "0 8 linear 7:0 0", inactive: null };
  scene.kernel.maps.set(device, {
    ...mine,
    regions: new Uint8Array(0),
    failed: new Set(),
    queues: false,
    users: 0,
    group: 1,
  });
  scene.again();
  await scene.want(wanted("abcabc"));
  await scene.pass(3_000);
  assert.equal(
    scene.warnings(/another device has that name \(UUID "LVM-abc"\).*dmsetup rename plimsoll-vol0 OTHER/),
    1,
  );
  assert.equal(scene.kernel.maps.get(device)!.table, mine.table);
});

Deno.test("a volume that grows does so below and above, once the kernel has seen it", async () => {
  const scene = new Scene(4);
  await scene.want(wanted("abab"));
  for (const portal of scene.kernel.portals.values()) portal.sectors = 6 * MiB / 512;
  await scene.want(wanted("ababba"));
  assert.equal(scene.goes(), "ababba");
  // What the disks do not have yet is left out.
  await scene.want(wanted("ababbaab"));
  assert.equal(scene.goes(), "ababba");
});

Deno.test("another volume with the same name: nothing of it is shown by the device of the old one", async () => {
  const scene = new Scene();
  await scene.want(wanted("abcabc"));
  scene.kernel.maps.get(device)!.users = 1;
  for (const portal of scene.kernel.portals.values()) portal.wwid = `t10.PLIMSOLL${other.toHex()}`;
  scene.device.replaced();
  await scene.want(wanted("abcabc", { identifier: other }));
  assert.equal(scene.kernel.sessions.size, 0);
  assert.equal(scene.warnings(/of a volume that was deleted and made again, and is in use.*Unmount it/), 1);
  assert.ok([...scene.kernel.maps.values()].every(({ queues, name }) => name === device || !queues));
  scene.kernel.maps.get(device)!.users = 0;
  await scene.pass(2_000);
  assert.equal(scene.goes(), "abcabc");
  assert.ok(scene.kernel.maps.get(device)!.uuid.endsWith(other.toHex()));
});

Deno.test("a volume that was replaced while no agent was there: the device that was left is not taken for the new one's", async () => {
  const scene = new Scene();
  await scene.want(wanted("abcabc"));
  await scene.stop(true);
  for (const portal of scene.kernel.portals.values()) portal.wwid = `t10.PLIMSOLL${other.toHex()}`;
  scene.kernel.maps.get(device)!.users = 1;
  scene.again();
  await scene.want(wanted("abcabc", { identifier: other }));
  assert.equal(scene.kernel.sessions.size, 0, "its users get errors");
  scene.kernel.maps.get(device)!.users = 0;
  await scene.pass(2_000);
  assert.equal(scene.goes(), "abcabc");
  assert.ok(scene.kernel.maps.get(device)!.uuid.endsWith(other.toHex()));
});

Deno.test("a disk that is not the volume's is not used", async () => {
  const scene = new Scene();
  scene.kernel.portals.get(beta)!.wwid = `t10.PLIMSOLL${other.toHex()}`;
  await scene.want(wanted("abcabc"));
  assert.match(scene.goes(), /^a[ac]ca[ac]c$/);
  assert.equal(scene.warnings(/Cannot use disk sd2 at 10.0.0.2:3260: its identifier is/), 1);
  // What the kernel knows of a disk is from its login: it logs in again.
  scene.kernel.portals.get(beta)!.wwid = `t10.PLIMSOLL${identifier.toHex()}`;
  await scene.pass(12_000);
  assert.equal(scene.goes(), "abcabc");
});

Deno.test("commands that fail, hang or print garbage are told once and done again; nothing is believed of them", async () => {
  const killed: ProgramEnd = { kind: "killed", why: "it has not ended after 30000 ms" };
  const garbage: ProgramEnd = { kind: "ended", code: 0, stdout: "\x00ELF plimsoll|\n", stderr: "" };
  const failed: ProgramEnd = { kind: "ended", code: 1, stdout: "", stderr: "device-mapper: no memory\n" };
  const faults: [RegExp, ProgramEnd, RegExp][] = [
    [/^dmsetup info/, garbage, /Cannot read what "dmsetup info" printed: "\\u0000ELF plimsoll\|"/],
    [/^dmsetup status/, garbage, /Cannot read what "dmsetup status" printed/],
    [
      /^dmsetup create --noudevsync plimsoll-vol0:beta/,
      failed,
      /Cannot make device "plimsoll-vol0:beta": dmsetup says "device-mapper: no memory/,
    ],
    [
      /^dmsetup create --noudevsync plimsoll-vol0 /,
      killed,
      /"dmsetup create" was killed, since it has not ended after 30000 ms/,
    ],
    [/^dmsetup message/, killed, /Cannot tell device/],
    [/^dmsetup (load|create)( .*)? --table/, failed, /Cannot (make|change) device/],
    [/--login$/, killed, /iscsiadm was killed/],
    [/-o new$/, { kind: "missing" }, /there is no iscsiadm. Install the package open-iscsi/],
    [/^dmsetup/, { kind: "missing" }, /there is no dmsetup. Install the package dmsetup/],
  ];
  for (const [which, end, told] of faults) {
    const scene = new Scene();
    scene.kernel.instead = (command) => which.test(command) ? end : null;
    await scene.want(wanted("abcabc"));
    await scene.pass(12_000);
    assert.ok(scene.warnings(told) >= 1, `${which}: ${scene.log.join("\n")}`);
    assert.ok(scene.log.length < 10, `${which}: told too often`);
    scene.kernel.instead = () => null;
    await scene.pass(8_000);
    assert.equal(scene.goes(), "abcabc", String(which));
    // In the middle of a move that comes with a write protection, too.
    scene.kernel.instead = (command) => which.test(command) ? end : null;
    await scene.want(wanted("acbacb", { writeProtected: true }));
    await scene.pass(3_000);
    scene.kernel.instead = () => null;
    await scene.pass(8_000);
    assert.equal(scene.goes(), "acbacb", String(which));
    assert.ok([...scene.kernel.maps.values()].every((map) => map.readOnly), String(which));
    assert.deepEqual(scene.device.report().problems, [], String(which));
    assert.equal(await scene.stop(false), true);
    assert.deepEqual([scene.kernel.maps.size, scene.kernel.sessions.size], [0, 0]);
  }
});

Deno.test("multipathd is told to let the disks alone, and told again when they are gone", async () => {
  const scene = new Scene();
  scene.kernel.missing.clear();
  const file = "/etc/multipath/conf.d/plimsoll-vol0.conf";
  await scene.want(wanted("abab"));
  assert.match(scene.kernel.files.get(file)!, /blacklist \{\n {2}wwid "\^337a7a7a7a7a7a7a7"\n/);
  assert.equal(scene.kernel.calls.filter((call) => call === "multipathd reconfigure").length, 1);
  await scene.stop(false);
  assert.ok(!scene.kernel.files.has(file));
  assert.equal(scene.kernel.calls.filter((call) => call === "multipathd reconfigure").length, 2);

  // It was quicker: its map is named, and nothing is built beside it.
  const merged = new Scene();
  await merged.want(wanted("abab", { writeCache: true }));
  const map = {
    name: "mpatha",
    uuid: "mpath-3a7",
    minor: 9,
    table: "0 8 multipath 0 8:16 1 8:32 1",
    inactive: null,
  };
  merged.kernel.maps.set("mpatha", {
    ...map,
    regions: new Uint8Array(0),
    failed: new Set(),
    queues: false,
    users: 0,
    group: 1,
  });
  await merged.want(wanted("abab"));
  assert.equal(merged.warnings(/multipathd has merged it into "mpatha".*multipath -f mpatha/), 1);
  assert.equal(merged.kernel.maps.size, 1);

  // A file that cannot be written keeps a new device from being made, and none that is there from being kept in step.
  const sealed = new Scene();
  sealed.kernel.missing.clear();
  const readOnly = () => Promise.reject(new Error("Read-only file system"));
  const { writeText } = sealed.kernel;
  sealed.kernel.writeText = (path, text) =>
    path.startsWith("/etc/multipath/") ? readOnly() : writeText.call(sealed.kernel, path, text);
  await sealed.want(wanted("abab"));
  assert.equal(sealed.kernel.maps.size, 0);
  assert.equal(
    sealed.warnings(/cannot be written: Read-only file system. Put this there by hand: blacklist \{/),
    1,
  );
  sealed.kernel.writeText = writeText;
  await sealed.pass(2_000);
  assert.equal(sealed.goes().slice(0, 4), "abab");
  sealed.kernel.files.delete(file);
  sealed.kernel.writeText = (path, text) =>
    path.startsWith("/etc/multipath/") ? readOnly() : writeText.call(sealed.kernel, path, text);
  sealed.again();
  await sealed.want(wanted("abba"));
  assert.equal(sealed.goes().slice(0, 4), "abba");
});
