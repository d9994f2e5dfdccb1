// Without these, an operator could not see why a volume has no device, or a write-protected one could be written.

import { strict as assert } from "node:assert";
import type { ProgramEnd } from "../../../lib/base/host_system.ts";
import { alpha, beta, device, gamma, MiB, Scene, wanted } from "./switch_scene.ts";

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
