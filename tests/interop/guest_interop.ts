// Without this, a Linux kernel initiator could meet what no library notices: partitions, ext4, digests on all data.

import { strict as assert } from "node:assert";
import { interop, shared, succeed } from "./tools.ts";
import { iqnPrefix, root, type TargetOptions, TargetProcess } from "./target_process.ts";

const cache = Deno.env.get("HARNESS_CACHE") ?? `${shared}/linux-guest/cache`;
const needs = [`${shared}/linux-guest/run-guest.sh`, `${cache}/READY`];
const chap = { user: "linux", secret: "linux-secret-16b" };
const mutual = { user: "plimsoll", secret: "plimsoll-secr-16" };

async function guest(
  target: TargetProcess,
  volume: string,
  script: string,
  environment: Record<string, string> = {},
  /** Called on the host by the guest's hostcall. */
  hook: string | null = null,
) {
  const [host, port] = target.portals[0].split(":");
  return await succeed(`${shared}/linux-guest/run-guest.sh`, [
    ...["-t", "240"],
    ...hook === null ? [] : ["-H", hook],
    ...Object.entries(environment).flatMap(([k, v]) => ["-e", `${k}=${v}`]),
    script,
  ], {
    env: { HARNESS_CACHE: cache, TGT_HOST: host!, TGT_PORT: port!, TGT_IQN: `${iqnPrefix}:${volume}` },
    secondsMax: 300,
  });
}

interop("a Linux guest partitions, formats, writes, checks and reads back", needs, async () => {
  await using target = await TargetProcess.start({ volumes: [{ name: "vol0", size: "1GiB" }] });
  const told = await guest(target, "vol0", `${shared}/linux-guest/guest/basic.sh`);
  assert.match(told, /== PASS basic/);
  assert.doesNotMatch(told, /I\/O error|Sense Key|conn error/);
  const partitions = await guest(target, "vol0", `${root}tests/interop/guest/partitions.sh`);
  assert.match(partitions, /== PASS partitions/);
  assert.equal((await target.stop()).code, 0);
  const check = await target.run("disk", "check", target.disk);
  assert.equal(check.code, 0, check.stdout + check.stderr);
});

interop("a Linux guest reads back what it wrote with header and data digests", needs, async () => {
  await using target = await TargetProcess.start({
    volumes: [{ name: "plain", size: "256MiB" }, { name: "locked", size: "256MiB", chap, mutual }],
  });
  const script = `${root}tests/interop/guest/digests.sh`;
  assert.match(await guest(target, "plain", script), /== PASS digests/);
  const secrets = {
    TGT_USER: chap.user,
    TGT_SECRET: chap.secret,
    TGT_USER_IN: mutual.user,
    TGT_SECRET_IN: mutual.secret,
  };
  assert.match(await guest(target, "locked", script, secrets), /== PASS digests/);
  assert.equal((await target.stop()).code, 0);
});

interop(
  "a Linux guest's session is moved five times under a file system that is written and verified",
  needs,
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
    assert.doesNotMatch(told, /I\/O error|Sense Key/);
    const moves = members.map(({ log }) => log.match(/an operator moves the session/g)?.length ?? 0);
    console.log(`     moves begun by each member: ${moves.join(", ")}`);
    for (const member of members) assert.equal((await member.stop()).code, 0, member.log);
  },
);
