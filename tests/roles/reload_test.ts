// Without these, a SIGHUP could do more than the operator may expect of it, or less.

import { strict as assert } from "node:assert";
import { keys } from "../../lib/meta/records.ts";
import { freePort, pause, TargetProcess } from "../interop/target_process.ts";
import { pattern } from "./scsi.ts";
import { MiB, oneDisk, oneVolume, turn, World } from "./world.ts";

const names = async (world: World) =>
  (await world.target.control.status()).volumes.map(({ name }) => name).sort();

Deno.test("a reload makes the volumes and opens the portals that came in addition", async () => {
  await using world = await World.start();
  const lun = await world.login();
  world.tables += `[[volume]]\nname = "more"\nsize = "2MiB"\n`;
  const portal = { hostname: "127.0.0.3", port: freePort("127.0.0.3") };
  await world.target.reload(world.config([...world.ports, portal]));
  assert.deepEqual(await names(world), ["more", "vol0"]);
  assert.deepEqual(await world.notices(), []);
  const more = await world.login("more", { portal });
  assert.equal(await more.write(0, pattern(8, 1)), "good");
  assert.equal(await lun.write(0, pattern(8, 1)), "good", "sessions go on");
  assert.equal((await lun.client.sendTargets(""))[0]!.addresses.length, 2);
  await world.target.reload(world.config([...world.ports, portal])); // again: nothing to do
  assert.deepEqual(await world.notices(), []);
});

Deno.test("everything else that changed is told and not done", async () => {
  await using world = await World.start({ hostnames: ["127.0.0.1", "127.0.0.2"] });
  const group = world.metadataStore.get(keys.group)!.value;
  world.tables = `short_cut = "off"\n${oneDisk}[[disk]]\npath = "/d/b.img"\nsize = "8MiB"\n` +
    `[[volume]]\nname = "vol0"\nsize = "24MiB"\n`;
  world.groupName = "another";
  await world.target.reload(world.config([world.ports[0]!]));
  const notices = (await world.notices()).join("\n");
  assert.match(notices, /\[group\] changed: restart/);
  assert.match(notices, /\[\[disk\]\] list changed: restart/);
  assert.match(notices, /\[member\] settings beside its portals changed: restart/);
  assert.match(notices, /portal was taken out.*until the member is restarted/);
  assert.match(notices, /Volume "vol0" is not as .* says, and stays as it is: size is 16MiB.*24MiB/);
  assert.deepEqual([...world.disks.keys()], ["/d/a.img"], "no disk is made");
  assert.deepEqual(world.metadataStore.get(keys.group)!.value, group);
  const lun = await world.login("vol0", { portal: world.ports[1]! });
  assert.equal(await lun.capacity(), 16 * MiB / 512);
  // The file as it was: nothing to tell any more.
  world.tables = oneDisk + oneVolume;
  world.groupName = "test";
  await world.target.reload(world.config());
  assert.deepEqual(await world.notices(), []);
  world.tables = oneDisk.trimEnd() + "\ndirect = true\n" + oneVolume;
  await world.target.reload(world.config());
  assert.match((await world.notices()).join(), /\[\[disk\]\] list changed: restart/);
});

Deno.test("a reload with a wrong secret file changes nothing", async () => {
  await using world = await World.start({ chapFiles: { "/d/short.chap": "short" } });
  const before = world.config();
  world.tables += `[[volume]]\nname = "a"\nsize = "2MiB"\n` +
    `[[volume]]\nname = "b"\nsize = "2MiB"\nchap = { user = "u", secret_file = "short.chap" }\n`;
  const portal = { hostname: "127.0.0.3", port: freePort("127.0.0.3") };
  await assert.rejects(
    world.target.reload(world.config([...world.ports, portal])),
    /Cannot use the CHAP secret of "\/d\/short.chap": it has 5 bytes, .* Give it 12 to 255 bytes/,
  );
  assert.deepEqual(await names(world), ["vol0"]);
  assert.equal((await world.target.control.status()).members[0]!.portals.length, 1);
  await world.target.reload(before);
  assert.deepEqual(await world.notices(), []);
});

Deno.test("reloads at once are done one after the other, and one during a stop does nothing", async () => {
  await using world = await World.start();
  world.tables += `[[volume]]\nname = "more"\nsize = "2MiB"\n`;
  const portal = { hostname: "127.0.0.3", port: freePort("127.0.0.3") };
  const config = world.config([...world.ports, portal]);
  await Promise.all([1, 2, 3].map(() => world.target.reload(config)));
  assert.deepEqual(await names(world), ["more", "vol0"]);
  assert.deepEqual(await world.notices(), []);
  world.tables += `[[volume]]\nname = "late"\nsize = "2MiB"\n`;
  const target = world.target;
  const stop = world.stop();
  await target.reload(world.config());
  await stop;
  assert.equal(world.metadataStore.get(keys.volume("late")), null);
});

Deno.test("a volume that cannot be made does not keep the member from serving the others", async () => {
  await using world = await World.start();
  const commit = world.metadataStore.commit.bind(world.metadataStore);
  world.metadataStore.commit = (compares, changes) => {
    if (changes.some(({ key }) => key === keys.volume("odd"))) throw new Error("too large a value");
    return commit(compares, changes);
  };
  world.tables += `[[volume]]\nname = "odd"\nsize = "2MiB"\n[[volume]]\nname = "even"\nsize = "2MiB"\n`;
  await world.target.reload(world.config());
  assert.deepEqual(await names(world), ["even", "vol0"]);
  assert.match((await world.notices()).join("\n"), /too large a value/);
  await world.restart();
  assert.deepEqual(await names(world), ["even", "vol0"]);
  assert.match((await world.notices()).join("\n"), /too large a value/);
  world.clock.advance(5_000);
  await turn(20);
  assert.deepEqual(await names(world), ["even", "vol0"], "tried again, and refused again");
  world.metadataStore.commit = commit;
  world.clock.advance(5_000);
  await turn(20);
  assert.deepEqual(await names(world), ["even", "odd", "vol0"], "made once the metadata takes it");
  assert.doesNotMatch((await world.notices()).join("\n"), /too large a value/);
});

Deno.test("process: SIGHUP takes a new volume over, and keeps the old configuration when the file is wrong", async () => {
  await using target = await TargetProcess.start({
    diskSize: "64MiB",
    volumes: [{ name: "vol0", size: "16MiB" }],
  });
  const text = await Deno.readTextFile(target.configuration);
  const hup = async (file: string, until: RegExp) => {
    await Deno.writeTextFile(target.configuration, file);
    Deno.kill(target.pid, "SIGHUP");
    for (let i = 0; !until.test(target.log); i++) {
      assert.ok(i < 500, `no ${until} in:\n${target.log}`);
      await pause(10);
    }
  };
  await hup(`${text}[[volume]]\nname = "bad"\n`, /was not reloaded; the old one goes on/);
  assert.match(target.log, /appliance\.toml:21.*Missing size in volume\[1\]/);
  await hup(`${text}[[volume]]\nname = "more"\nsize = "8MiB"\n`, /configuration reloaded/);
  assert.match(target.log, /volume is served.*more/);
  assert.doesNotMatch(target.log, /volume is served.*bad/);
  const { code } = await target.stop("SIGTERM");
  assert.equal(code, 0);
});
