// Without these, a member could serve when it no longer may, or stop when it need not, or need a restart afterwards.

import { strict as assert } from "node:assert";
import { memberLeaseTimes } from "../../lib/meta/membership.ts";
import { keys } from "../../lib/meta/records.ts";
import { pattern } from "./scsi.ts";
import { oneDisk, turn, until, World, type WorldOptions } from "./world.ts";

/** A member whose metadata can be away: calls do not arrive, watches are silent. */
async function worldWithLink(
  { files, ...options }: WorldOptions & { readonly files?: ReadonlyMap<string, string> } = {},
): Promise<{ world: World; link: { up: boolean } }> {
  const world = new World({ leaseTimes: memberLeaseTimes, ...options });
  for (const [path, text] of files ?? []) world.files.set(path, text);
  const link = { up: true };
  world.connect = () => {
    const driver = world.metadataStore.connect();
    const calls = [
      "get",
      "list",
      "commit",
      "grantLease",
      "renewLease",
      "revokeLease",
      "leaseLeftMs",
    ] as const;
    for (const name of calls) {
      const call = (driver[name] as (...args: unknown[]) => Promise<unknown>).bind(driver);
      Object.assign(driver, {
        [name]: (...args: unknown[]) => link.up ? call(...args) : Promise.reject(new Error("etcd is away")),
      });
    }
    return driver;
  };
  await world.start();
  return { world, link };
}

/** Time as it passes: in steps, with the event loop in between. */
async function pass(world: World, ms: number): Promise<void> {
  for (let left = ms; left > 0; left -= 250) {
    world.clock.advance(250);
    await turn(0);
  }
}

const stateOf = async (world: World, name: string) =>
  (await world.target.control.members()).find((m) => m.name === name)?.state;

Deno.test("metadata that is away stops nothing while the lease holds, then commands are BUSY, then all goes on", async () => {
  // Lost without it: I/O that stops with every restart of etcd, or that goes on for ever without it.
  const { world, link } = await worldWithLink();
  await using _ = world;
  const lun = await world.login();
  const data = pattern(8, 1);
  assert.equal(await lun.write(0, data), "good");
  link.up = false;
  await pass(world, 6_000);
  assert.equal(await lun.write(8, data), "good", "6 s after etcd is gone");
  await pass(world, 4_000);
  assert.equal(await lun.write(16, data), "busy");
  assert.equal(await lun.read(0, 8), "busy");
  assert.equal(await lun.testUnitReady(), "good", "what touches no data is answered");
  const status = await world.target.control.status();
  assert.match(
    status.notices.join("\n"),
    /Commands are answered BUSY: the member has lost its lease \(etcd is away\)/,
  );
  assert.match(status.notices.join("\n"), /What is shown is what was known last/);
  assert.deepEqual([status.members[0]!.state, status.volumes[0]!.name], ["joining", "vol0"]);
  link.up = true;
  await pass(world, 1_000);
  assert.equal(await lun.write(16, data), "good");
  assert.deepEqual(await lun.read(0, 8), data);
  assert.deepEqual(await world.notices(), []);
  assert.equal(await stateOf(world, "alpha"), "up");
  assert.equal(world.logged("error", /lease is lost/).length, 1);
  assert.equal(world.logged("info", /has its lease again/).length, 1);
});

Deno.test("what changed while the lease was away is known before the first command is served", async () => {
  // Lost without it: a volume served as it was, after others have agreed that it is different.
  const { world, link } = await worldWithLink();
  await using _ = world;
  const lun = await world.login();
  link.up = false;
  await pass(world, 12_000);
  assert.equal(await lun.write(0, pattern(1, 1)), "busy");
  const other = world.metadataStore.connect();
  link.up = true; // for the other member's change; ours has not come back yet
  const entry = (await other.get(keys.volume("vol0")))!;
  const record = JSON.parse(new TextDecoder().decode(entry.value));
  const value = new TextEncoder().encode(JSON.stringify({ ...record, writeProtected: true }));
  await other.commit([], [{ kind: "put", key: entry.key, value }]);
  await until(() => {
    world.clock.advance(250);
    return world.logged("info", /has its lease again/).length === 1;
  }, "the lease is back");
  assert.equal(world.target.control.ready(), true);
  const verdict = await lun.write(0, pattern(1, 1));
  assert.ok(
    verdict === "6/2a/01" || verdict === "7/27/00",
    `write protected, or its unit attention: ${verdict}`,
  );
});

Deno.test("members see each other come, serve, stop and die", async () => {
  // Lost without it: "member list" that shows what was once.
  const alpha = await World.start({ leaseTimes: memberLeaseTimes });
  await using _ = alpha;
  assert.equal(await stateOf(alpha, "alpha"), "up");
  const options = { metadata: alpha.metadataStore, member: "beta", tables: oneDisk };
  const { world: beta, link } = await worldWithLink({ ...options, files: alpha.files });
  await using __ = beta;
  await until(() => alpha.logged("info", /a member's state changed/).length > 0, "beta is up");
  assert.equal(await stateOf(alpha, "beta"), "up");
  const report = (await alpha.target.control.members()).find(({ name }) => name === "beta")!;
  assert.deepEqual(report.portals, [`127.0.0.1:${beta.ports[0]!.port}`]);
  assert.ok(report.leaseLeftMs! > 0);
  const { members } = await alpha.target.control.status();
  assert.deepEqual(members.map(({ name, state, load }) => [name, state, load === null]), [
    ["alpha", "up", false],
    ["beta", "up", true],
  ]);
  await beta.stop();
  assert.equal(await stateOf(alpha, "beta"), "down");
  assert.equal(alpha.logged("warn", /a member is down/).length, 1);
  await beta.start();
  await until(() => alpha.logged("info", /a member has joined/).length > 1, "beta is back");
  link.up = false; // this time without a word
  await pass(alpha, 11_000);
  assert.equal(await stateOf(alpha, "beta"), "down");
  assert.equal(await stateOf(alpha, "alpha"), "up");
});

Deno.test("a stranger's record is reported and counts for nothing", async () => {
  // Lost without it: somebody writes to the metadata, and nobody is told.
  await using world = await World.start();
  const metadata = world.metadataStore.connect();
  await metadata.commit([], [{
    kind: "put",
    key: keys.live("mallory"),
    value: new TextEncoder().encode("{}"),
  }]);
  await until(() => world.logged("error", /does not prove the group's secret/).length > 0, "it was noticed");
  assert.match(
    (await world.notices()).join(),
    /who does not know the group's secret wrote a record for member "mallory"/,
  );
  assert.deepEqual((await world.target.control.members()).map(({ name }) => name), ["alpha"]);
});

Deno.test("a stop while the metadata is away is as quick as any", async () => {
  // Lost without it: systemd kills the member after its time, and the disks are not closed cleanly.
  const { world, link } = await worldWithLink();
  link.up = false;
  const steps = await world.stop();
  assert.equal(steps.at(-1), "stopped");
  link.up = true;
  await world.start();
  assert.deepEqual(world.logged("warn", /power loss|not closed cleanly/), []);
  await world.stop();
});
