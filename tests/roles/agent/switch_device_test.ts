// Without these, the host agent could send pages to the wrong member for ever, lose writes that it was told are durable, take a
// disk away from its user, or be stuck after one command that failed.

import { strict as assert } from "node:assert";
import type { ProgramEnd } from "../../../lib/base/host_system.ts";
import { DeviceMapper } from "../../../lib/roles/agent/device_mapper.ts";
import { OpenIscsi } from "../../../lib/roles/agent/open_iscsi.ts";
import { SwitchDevice } from "../../../lib/roles/agent/switch_device.ts";
import type { WantedDevice } from "../../../lib/roles/agent/wanted_device.ts";
import { ManualClock } from "../manual_clock.ts";
import { FakeKernel } from "./fake_kernel.ts";

const MiB = 2 ** 20;
const target = "iqn.2026-11.net.plimsoll.demo:vol0";
const identifier = new Uint8Array(16).fill(0xa7);
const other = new Uint8Array(16).fill(0x3c);
const secret = "0123456789abcdef0123456789abcdef";
const [alpha, beta, gamma] = ["10.0.0.1:3260", "10.0.0.2:3260", "10.0.0.3:3260"] as const;
const device = "plimsoll-vol0";
const names = ["alpha", "beta", "gamma"] as const;
/** Of the members, in this order. */
const letters = "abc";
const portalOf = { alpha, beta, gamma };

/** Pages with homes at these members: "aab" */
function wanted(
  homes: string,
  options: Partial<WantedDevice> = {},
  down: readonly string[] = [],
): WantedDevice {
  const indexes = Uint8Array.from(homes, (letter) => letters.indexOf(letter));
  return {
    identifier,
    epoch: 7,
    sizeBytes: homes.length * MiB,
    pageBytes: MiB,
    writeCache: false,
    writeProtected: false,
    homes: indexes,
    members: names.map((name, i) => {
      const pages = indexes.filter((home) => home === i).length;
      const up = !down.includes(name);
      return { name, up, portals: up && pages > 0 ? [portalOf[name]] : [], pages };
    }),
    ...options,
  };
}

class Scene {
  readonly kernel = new FakeKernel();
  readonly clock = new ManualClock();
  readonly log: string[] = [];
  device = this.#agent();

  constructor(pages = 6) {
    for (const portal of [alpha, beta, gamma]) {
      const wwid = `t10.PLIMSOLL${identifier.toHex()}`;
      this.kernel.portals.set(portal, { wwid, sectors: pages * MiB / 512, writeThrough: true, up: true });
    }
  }

  /** The process has been killed, and another one begins. */
  again(): void {
    this.device = this.#agent();
  }

  #agent(): SwitchDevice {
    const { kernel: system, clock } = this;
    const at = (level: string) => (message: string, fields: unknown = {}) => {
      this.log.push(`${level} ${message} ${JSON.stringify(fields)}`);
    };
    const identity = (user: string) => ({ user, secret: new TextEncoder().encode(secret) });
    return new SwitchDevice({
      clock,
      log: { debug: at("debug"), info: at("info"), warn: at("warn"), error: at("error") },
      system,
      mapper: new DeviceMapper(system),
      iscsi: new OpenIscsi({ system, clock, initiatorName: "iqn.host", interfaceName: "plimsoll-1" }),
      volume: "vol0",
      target,
      proofs: { chap: identity("proxy-initiator"), mutual: identity("proxy-target") },
    });
  }

  /** Lets commands end, and so much time pass in small steps. */
  async pass(ms = 0): Promise<void> {
    for (let passed = 0; passed <= ms; passed += 500) {
      await new Promise((done) => setTimeout(done, 0)); // all that the kernel does is done by then
      if (passed < ms) this.clock.advance(500);
    }
  }

  async want(to: WantedDevice): Promise<void> {
    this.device.want(to);
    await this.pass();
  }

  async stop(keep: boolean): Promise<boolean> {
    const stopping = this.device.stop(keep);
    await this.pass(10_000);
    return await stopping;
  }

  /** By region: the letter of the member that a request goes to. */
  goes(): string {
    const { kernel } = this;
    return Array.from(kernel.maps.get(device)!.regions, (_, region) => {
      const portal = kernel.goes(device, region);
      const member = names.findIndex((name) => portalOf[name] === portal);
      return letters[member] ?? ` ${portal} `;
    }).join("");
  }

  warnings(pattern: RegExp): number {
    return this.log.filter((line) => pattern.test(line)).length;
  }
}

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

Deno.test("the report says what the kernel has: size, epoch, regions, and how each leg and path is", async () => {
  const scene = new Scene();
  const legs = () =>
    scene.device.report().legs.map(({ member, regions, state, paths }) =>
      `${member} ${regions} ${state} ` +
      paths.map((path) => `${path.disk}@${path.member}:${path.state}`).join(" ")
    );
  assert.deepEqual(scene.device.report(), {
    problems: [],
    lastProblem: null,
    device: null,
    legs: [],
    logins: [],
  });
  scene.device.want(wanted("abaab"));
  assert.deepEqual(scene.device.report().problems, ['Device "plimsoll-vol0" is being made.']);
  await scene.pass();
  assert.deepEqual(scene.device.report().device, {
    path: "/dev/mapper/plimsoll-vol0",
    sizeBytes: 5 * MiB,
    readOnly: false,
    epoch: 7,
  });
  assert.deepEqual(scene.device.report().problems, []);
  assert.deepEqual(legs(), [
    "alpha 3 home sd1@alpha:active sd2@beta:active",
    "beta 2 home sd2@beta:active sd1@alpha:active",
  ]);

  // What the kernel is being told counts when it has been told in full.
  let hang: (end: ProgramEnd) => void = () => {};
  scene.kernel.instead = (command) =>
    command.includes(" message ") ? new Promise((resolve) => hang = resolve) : null;
  await scene.want(wanted("bbaab", { epoch: 8 }));
  assert.deepEqual([scene.device.report().device?.epoch, scene.device.report().problems], [7, []]);
  scene.kernel.instead = () => null;
  hang({ kind: "killed", why: "it has not ended after 30000 ms" });
  await scene.pass();
  assert.match(scene.device.report().problems.join(), /Cannot tell device "plimsoll-vol0" something/);
  await scene.pass(2_000);
  assert.deepEqual([scene.device.report().device?.epoch, scene.device.report().problems], [8, []]);
  assert.match(scene.device.report().lastProblem!.message, /Cannot tell device/);
  assert.deepEqual(legs().map((leg) => leg.slice(0, 7)), ["alpha 2", "beta 3 "]);

  scene.kernel.lose(beta);
  await scene.pass(4_000);
  assert.deepEqual(legs(), [
    "alpha 2 home sd1@alpha:active sd2@beta:failed",
    "beta 3 fallback sd2@beta:failed sd1@alpha:active",
  ]);
  assert.deepEqual(scene.device.report().problems, [], "everything is served");
  scene.kernel.lose(alpha);
  await scene.pass(4_000);
  assert.match(legs()[1]!, /^beta 3 waiting sd2@beta:failed sd1@alpha:failed/);
  assert.match(scene.device.report().problems.join(), /"plimsoll-vol0:beta" has no path.*written waits/);
  await scene.pass(70_000);
  assert.match(legs()[0]!, /^alpha 2 failing/);
  assert.match(scene.device.report().problems.join(), /"plimsoll-vol0:beta" has no path.*ends with errors/);
  for (const portal of [alpha, beta]) scene.kernel.portals.get(portal)!.up = true;
  await scene.pass(6_000);
  assert.deepEqual(legs(), [
    "alpha 2 home sd1@alpha:active sd2@beta:active",
    "beta 3 home sd2@beta:active sd1@alpha:active",
  ]);
  assert.deepEqual(scene.device.report().problems, []);
});

Deno.test("the report says why there is no device, which logins fail, and what a device lacks that is there all the same", async () => {
  const scene = new Scene();
  for (const portal of [alpha, beta]) scene.kernel.portals.get(portal)!.up = false;
  await scene.want(wanted("abab"));
  const { problems, device: none, logins } = scene.device.report();
  assert.equal(none, null);
  assert.match(problems.join(), /^Cannot make device "plimsoll-vol0": no session with a member/);
  assert.deepEqual(logins.map(({ member, portal }) => [member, portal]), [["alpha", alpha], ["beta", beta]]);
  assert.match(logins[0]!.reason, /Cannot log in to .* at 10.0.0.1:3260: iscsiadm says "iscsiadm: initiator/);
  for (const portal of [alpha, beta]) scene.kernel.portals.get(portal)!.up = true;
  await scene.pass(12_000);
  assert.deepEqual([scene.device.report().problems, scene.device.report().logins], [[], []]);
  // A login that was given up, and came about all the same.
  let login: string[] = [];
  scene.kernel.instead = (command) => {
    if (!command.endsWith("--login")) return null;
    login = command.split(" ").slice(1);
    return { kind: "killed", why: "it took too long" };
  };
  await scene.want(wanted("ababcc"));
  assert.match(scene.device.report().logins[0]!.reason, /Cannot log in to .* at 10.0.0.3:3260: .*too long/);
  scene.kernel.instead = () => null;
  await scene.kernel.run("iscsiadm", login);
  await scene.pass(6_000);
  assert.deepEqual(scene.device.report().logins, []);
  await scene.want(wanted("abab", { writeCache: true }));
  assert.match(scene.device.report().problems.join(), /^Writes may be lost on device/);
  assert.notEqual(scene.device.report().device, null);
  await scene.want(wanted("abab"));
  assert.deepEqual(scene.device.report().problems, []);
  await scene.stop(false);
  assert.deepEqual([scene.device.report().device, scene.device.report().legs], [null, []]);
});

Deno.test("a write-protected volume gets a read-only device, which follows when the protection is lifted and set", async () => {
  const scene = new Scene();
  const protect = (on: boolean, ...portals: string[]) => {
    for (const portal of portals) scene.kernel.portals.get(portal)!.readOnly = on;
  };
  const readOnly = () => [...scene.kernel.maps.values()].filter((map) => map.readOnly).length;
  protect(true, alpha, beta, gamma);
  await scene.want(wanted("abcabc", { writeProtected: true }));
  assert.deepEqual([scene.goes(), readOnly(), scene.kernel.maps.size], ["abcabc", 4, 4]);
  assert.deepEqual([scene.device.report().device?.readOnly, scene.device.report().problems], [true, []]);
  const idle = scene.kernel.calls.length;
  await scene.pass(6_000);
  assert.ok(
    !scene.kernel.calls.slice(idle).some((call) => /rescan|load/.test(call)),
    "at rest it only looks",
  );

  // Lifted: the kernel opens no disk for writing before it has looked at it again.
  protect(false, alpha, beta, gamma);
  await scene.want(wanted("abcabc"));
  assert.deepEqual([scene.goes(), readOnly()], ["abcabc", 0]);
  assert.equal(scene.device.report().device?.readOnly, false);
  assert.equal(scene.warnings(/writable again/), 1);

  // Set while it is in use: the switch refuses writes before the maps below do.
  scene.kernel.maps.get(device)!.users = 1;
  protect(true, alpha, beta, gamma);
  const before = scene.kernel.calls.length;
  await scene.want(wanted("abcabb", { writeProtected: true }));
  assert.deepEqual([scene.goes(), readOnly()], ["abcabb", 4]);
  const resumed = scene.kernel.calls.slice(before).flatMap((call) =>
    / resume .* (\S+)$/.exec(call)?.[1] ?? []
  );
  assert.equal(resumed[0], device);
  assert.equal(resumed.length, 4);

  // A process that starts anew finds it so; another one's member still shows its disk protected.
  scene.again();
  for (const session of scene.kernel.sessions.values()) session.seen.readOnly = true;
  await scene.want(wanted("abcabb", { writeProtected: true }));
  assert.deepEqual([scene.goes(), readOnly()], ["abcabb", 4]);
  protect(false, alpha, gamma);
  await scene.want(wanted("abcabb"));
  assert.deepEqual([readOnly(), scene.device.report().device?.readOnly], [0, false]);
  assert.match(scene.goes(), /^a[ac]ca[ac][ac]$/, "beta's disk cannot be opened for writing");
  assert.match(scene.device.report().problems.join(), /Cannot write to disk sd2: the kernel takes it to be/);
  protect(false, beta);
  await scene.pass(6_000);
  assert.deepEqual([scene.goes(), scene.device.report().problems], ["abcabb", []]);

  // Nobody's disk can be opened for writing: it stays as it is, and reads go on.
  protect(true, alpha, beta, gamma);
  await scene.want(wanted("abcabb", { writeProtected: true }));
  for (const session of scene.kernel.sessions.values()) session.seen.readOnly = true;
  await scene.want(wanted("abcabb"));
  assert.deepEqual([scene.goes(), readOnly()], ["abcabb", 4]);
  assert.match(scene.device.report().problems.join(), /Cannot write to disk sd1/);
  protect(false, alpha, beta, gamma);
  await scene.pass(6_000);
  assert.deepEqual([scene.goes(), readOnly(), scene.device.report().problems], ["abcabb", 0, []]);
});

Deno.test("a path that is away keeps no device from becoming writable or read-only", async () => {
  const scene = new Scene();
  for (const on of [true, false]) {
    scene.kernel.lose(beta);
    for (const portal of [alpha, beta, gamma]) scene.kernel.portals.get(portal)!.readOnly = on;
    await scene.want(wanted("abcabc", { writeProtected: on }));
    await scene.pass(2_000);
    assert.match(scene.goes(), /^a[ac]ca[ac]c$/);
    assert.equal([...scene.kernel.maps.values()].filter((map) => map.readOnly).length, on ? 4 : 0);
    scene.kernel.portals.get(beta)!.up = true;
    await scene.pass(8_000);
    assert.equal(scene.goes(), "abcabc");
    assert.deepEqual(scene.device.report().problems, []);
  }
});
