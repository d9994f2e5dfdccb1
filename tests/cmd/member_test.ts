// Without this, operators could not see who of the group lives.

import { strict as assert } from "node:assert";
import { run, Scene } from "./scene.ts";

Deno.test("member list shows who lives, where, and for how long at least", async () => {
  await using scene = new Scene();
  const { code, out } = await run(["member", "list", ...scene.access]);
  assert.equal(code, 0);
  const [head, alpha, beta] = out.split("\n");
  assert.match(head!, /^NAME +STATE +PEER +PORTALS +HOST +PROCESS +UP FOR +LEASE +VERSION +DRAIN$/);
  assert.match(
    alpha!,
    /^alpha +up +127\.0\.0\.1:3262 +127\.0\.0\.1:3260 \[::1\]:3260 +san1 +4711 .* 7\.6 s +0\.1\.0 +-$/,
  );
  assert.match(beta!, /^beta +down +- +- +- +- +- +- +- +12 pages left, 40 s$/);
  const json = await run(["member", "list", "--json", ...scene.access]);
  assert.deepEqual(JSON.parse(json.out), scene.control.memberList);
});

Deno.test("member list and status show who has the group's address", async () => {
  await using scene = new Scene();
  scene.control.memberList[0]!.groupAddress = "10.0.0.100:3260";
  const { out } = await run(["member", "list", ...scene.access]);
  assert.match(out, /^alpha .* \[::1\]:3260 10\.0\.0\.100:3260 \(group\) /m);
  const status = scene.control.status.bind(scene.control);
  let holder: string | null = "alpha";
  scene.control.status = async () => ({
    ...await status(),
    groupAddress: { address: "10.0.0.100:3260", holder },
  });
  assert.match(
    (await run(["status", ...scene.access])).out,
    /^Address of the group: 10\.0\.0\.100:3260, at alpha$/m,
  );
  holder = null;
  assert.match((await run(["status", ...scene.access])).out, /10\.0\.0\.100:3260, nobody has it$/m);
});

Deno.test("member drain and remove ask the member, and say what to do next", async () => {
  await using scene = new Scene();
  const drained = await run(["member", "drain", "beta", ...scene.access]);
  assert.deepEqual([drained.code, drained.out], [
    0,
    'Member "beta" is being drained. Watch it with: plimsoll member list\n',
  ]);
  await run(["member", "drain", "beta", "--cancel", ...scene.access]);
  const removed = await run(["member", "remove", "beta", "--json", ...scene.access]);
  assert.deepEqual(JSON.parse(removed.out), { member: "beta", removed: true });
  assert.deepEqual(scene.control.calls, [["drain", "beta", "leave"], ["drain", "beta", null], [
    "remove",
    "beta",
  ]]);
});

Deno.test("member drain --restart --wait returns when the member is ready, and says who stays", async () => {
  await using scene = new Scene();
  const [alpha] = scene.control.memberList;
  const waits = run(["member", "drain", "alpha", "--restart", "--wait", ...scene.access], { tty: true });
  alpha!.drain = { purpose: "restart", pagesLeft: 0, leftMs: 0 };
  await new Promise((resolve) => setTimeout(resolve, 700));
  assert.deepEqual(scene.control.calls, [["drain", "alpha", "restart"]]);
  alpha!.drain = { ...alpha!.drain, ready: { staying: 1 } };
  const { code, out, err } = await waits;
  assert.deepEqual([code, out], [
    0,
    'Member "alpha" is ready: start its process anew. 1 client stays (its log says why), to be asked to log out when it stops.\n',
  ]);
  assert.match(err, /alpha: for a restart/);
  assert.match((await run(["member", "list", ...scene.access])).out, /ready to restart, 1 client stays$/m);
});

Deno.test("waiting for a member that goes down fails, and --cancel stands alone", async () => {
  await using scene = new Scene();
  const down = await run(["member", "drain", "beta", "--restart", "--wait", ...scene.access]);
  assert.equal(down.code, 1);
  assert.match(down.err, /"beta" went down while it was being drained/);
  const both = await run(["member", "drain", "beta", "--cancel", "--restart", ...scene.access]);
  assert.deepEqual([both.code, /Give --cancel alone/.test(both.err)], [2, true]);
});

Deno.test("status shows other members without a load", async () => {
  await using scene = new Scene();
  const status = scene.control.status.bind(scene.control);
  scene.control.status = async () => {
    const report = await status();
    const beta = { ...report.members[0]!, name: "beta", state: "down" as const, portals: [], load: null };
    return { ...report, members: [...report.members, beta] };
  };
  const { out } = await run(["status", ...scene.access]);
  assert.match(out, /alpha {2}up {2}1 session over 1 connection/);
  assert.match(out, /beta {2}down$/m);
});
