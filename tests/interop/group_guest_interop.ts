// Without this, a Linux kernel initiator could meet what a group does and one member does not: redirects, requests to log out,
// pages that are away for a while.

import { strict as assert } from "node:assert";
import { guest, guestNeeds } from "./guest.ts";
import { exists, interop, shared, succeed } from "./tools.ts";
import { pause, root, type TargetOptions, TargetProcess, until } from "./target_process.ts";
import { route, ThreeMembers } from "./three_members.ts";

/** What sg_referrals printed: blocks, and the target port group where they are active. */
function referrals(text: string) {
  const found = text.matchAll(
    /first lba (\d+), last lba (\d+)\s+target port descriptor 0:\s+port group (\d+) state/g,
  );
  return [...found].map(([, first, last, group]) => ({
    first: Number(first),
    last: Number(last),
    group: Number(group),
  }));
}

interop(
  "a Linux guest's session is moved five times under a file system that is written and verified",
  guestNeeds,
  async () => {
    // Lost without it: what a kernel does with an asynchronous logout request and a redirect.
    const options: TargetOptions = {
      volumes: [],
      diskSize: "256MiB",
      onePortal: true,
      balance: ["logout_seconds = 2", "report_seconds = 0.5"],
    };
    await using alpha = await TargetProcess.start(options);
    const shared = {
      ...options,
      metadata: `sqlite:${alpha.directory}/var/group.db`,
      secretFile: `${alpha.directory}/var/group.secret`,
    };
    await using beta = await TargetProcess.start({ ...shared, member: "beta" });
    await using gamma = await TargetProcess.start({ ...shared, member: "gamma" });
    const members = [alpha, beta, gamma];
    const made = await alpha.run(
      "volume",
      "create",
      "vol0",
      "--size",
      "256MiB",
      "--config",
      alpha.configuration,
    );
    assert.equal(made.code, 0, made.stderr);
    const named = ["alpha", "beta", "gamma"].map((name, i) => [
      name,
      members[i]!.admin,
      `${members[i]!.directory}/var/alpha/admin.token`,
    ]);
    const hook = `${alpha.directory}/hook.sh`;
    await Deno.writeTextFile(
      hook,
      `#!/bin/sh\nMEMBERS='${
        JSON.stringify(named)
      }' exec ${Deno.execPath()} run -A --quiet ${root}tests/interop/move_session.ts\n`,
      { mode: 0o755 },
    );
    const told = await guest(alpha, "vol0", `${root}tests/interop/guest/moved.sh`, {}, hook).catch(
      (error: Error) => {
        throw new Error([error.message, ...members.map(({ log }) => log.slice(-3000))].join("\n"));
      },
    );
    assert.match(told, /== PASS moved/);
    const [all, rest] = told.split("== referrals").slice(1).map(referrals);
    const { runs, pageBytes } = (await route(alpha, "vol0"))!;
    const groups = new Map(runs.map(([member], i) => [member, all![i]!.group]));
    assert.equal(new Set(groups.values()).size, 3);
    let next = 0;
    const wanted = runs.map(([member, pages]) => {
      const first = next;
      next += pages * pageBytes / 512;
      return { first, last: next - 1, group: groups.get(member) };
    });
    assert.deepEqual(all, wanted, "what sg_referrals shows is not what route show tells");
    assert.deepEqual(rest, wanted.filter(({ last }) => last >= 100_000), "continued by LBA");
    assert.doesNotMatch(told, /I\/O error|Sense Key/);
    const moves = members.map(({ log }) => log.match(/an operator moves the session/g)?.length ?? 0);
    console.log(`     moves begun by each member: ${moves.join(", ")}`);
    for (const member of members) assert.equal((await member.stop()).code, 0, member.log);
  },
);

/** The guest reaches these addresses of the host, and no others of its loopback. */
const reachable: TargetOptions = { diskSize: "512MiB", addresses: ["127.0.0.1", "127.0.0.2"] };

interop(
  "a Linux guest uses a volume of three members like any other disk, through each and through a proxy",
  guestNeeds,
  async () => {
    await using group = await ThreeMembers.start("sqlite", reachable);
    await group.createVolume("wide", "1GiB");
    const [alpha] = group.members as [TargetProcess];
    await using proxy = await TargetProcess.start({
      secretFile: `${alpha.directory}/var/group.secret`,
      proxy: [`group_portals = [${JSON.stringify(alpha.portals[0])}]`, `volumes = ["wide"]`],
    });
    for (const portal of [...group.members, proxy]) {
      const told = await guest(portal, "wide", `${shared}/linux-guest/guest/basic.sh`);
      assert.match(told, /== PASS basic/);
      assert.doesNotMatch(told, /I\/O error|Sense Key|conn error/);
    }
    assert.equal((await proxy.stop()).code, 0, proxy.log);
    await group.stop();
  },
);

interop(
  "a Linux guest and qemu-img write to the pages of a member that is away for 20 s: no error",
  [...guestNeeds, "qemu-img"],
  async () => {
    await using group = await ThreeMembers.start("sqlite", reachable);
    await group.createVolume("wide", "512MiB");
    await group.createVolume("image", "96MiB");
    const [alpha, beta, gamma] = group.members as [TargetProcess, TargetProcess, TargetProcess];
    const image = `${alpha.directory}/image`;
    await succeed("sh", ["-c", `head -c 96M /dev/urandom >${image}`], { secondsMax: 60 });
    const called = `${alpha.directory}/called`;
    const hook = `${alpha.directory}/hook.sh`;
    await Deno.writeTextFile(hook, `#!/bin/sh\nexec touch ${called}\n`, { mode: 0o755 });
    let over = false;
    const away = async () => {
      await until(() => over || exists(called), "the guest calls", 240_000);
      if (over) return;
      await gamma.stop("SIGKILL");
      const copy = succeed(
        "qemu-img",
        ["convert", "-n", "-f", "raw", "-O", "raw", image, beta.url("image")],
        {
          secondsMax: 120,
        },
      );
      await Promise.all([copy, pause(20_000).then(() => gamma.restart())]);
      await succeed("qemu-img", ["compare", "-f", "raw", "-F", "raw", image, gamma.url("image")], {
        secondsMax: 120,
      });
    };
    const [told] = await Promise.all([
      guest(alpha, "wide", `${root}tests/interop/guest/away.sh`, {}, hook).finally(() => over = true),
      away(),
    ]);
    assert.match(told, /== PASS away/);
    assert.doesNotMatch(told, /I\/O error|Sense Key/);
    assert.ok(exists(called), "the member was never away");
    await group.stop();
  },
);
