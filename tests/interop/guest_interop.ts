// Without this, a Linux kernel initiator could meet what no library notices: partitions, ext4, digests on all data.

import { strict as assert } from "node:assert";
import { guest, guestNeeds } from "./guest.ts";
import { interop, shared } from "./tools.ts";
import { root, TargetProcess } from "./target_process.ts";

const chap = { user: "linux", secret: "linux-secret-16b" };
const mutual = { user: "plimsoll", secret: "plimsoll-secr-16" };

interop("a Linux guest partitions, formats, writes, checks and reads back", guestNeeds, async () => {
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

interop("a Linux guest reads back what it wrote with header and data digests", guestNeeds, async () => {
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
