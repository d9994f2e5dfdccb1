// Without this, a Linux kernel initiator could meet what no library notices: partitions, ext4, digests on all data.

import { strict as assert } from "node:assert";
import { interop, shared, succeed } from "./tools.ts";
import { iqnPrefix, root, TargetProcess } from "./target_process.ts";

const cache = Deno.env.get("HARNESS_CACHE") ?? `${shared}/linux-guest/cache`;
const needs = [`${shared}/linux-guest/run-guest.sh`, `${cache}/READY`];
const chap = { user: "linux", secret: "linux-secret-16b" };
const mutual = { user: "plimsoll", secret: "plimsoll-secr-16" };

async function guest(
  target: TargetProcess,
  volume: string,
  script: string,
  environment: Record<string, string> = {},
) {
  const [host, port] = target.portals[0].split(":");
  return await succeed(`${shared}/linux-guest/run-guest.sh`, [
    ...["-t", "240"],
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
