// Without this, whether clients notice it when load is spread anew is unknown: whole members and clients on machines of their
// own (live_group.ts).

import { strict as assert } from "node:assert";
import type { SessionReport } from "../../lib/mgmt/control.ts";
import { names, scene } from "./live_group.ts";
import { iqnPrefix, pause } from "./target_process.ts";

const quick = "[balance]\nsettle_seconds = 2\ndwell_seconds = 3\nwork_min = 5\n";

scene("the balancer moves a busy client with its connection, and nobody notices", async (group) => {
  // Lost without it: a balancer that interrupts whom it helps.
  await group.volume("vol2");
  const clients = ["vol", "vol2"].map((volume) =>
    group.client({ host: volume, target: `${iqnPrefix}:${volume}`, depth: 4 }).report
  );
  const sessionsAt = async () =>
    await Promise.all(
      names.map(async (name) => (await group.api<SessionReport[]>(name, "sessions"))!.length),
    );
  await group.until(async () => (await sessionsAt())[0] === 2, "both are logged in at alpha");
  const before = group.connections();
  await group.run("beta", "balance", "policy", "least-loaded");
  await group.until(async () => (await sessionsAt())[0]! < 2, "one has moved");
  await pause(6_000);
  const after = await sessionsAt();
  assert.equal(after[0]! + after[1]! + after[2]!, 2);
  assert.equal(after[0], 1, "nobody comes back, and the other one stays");
  assert.match(group.said("alpha"), /a session has moved with its connection.*the load is spread anew/);
  assert.deepEqual(group.connections(), before, "a client's TCP connection is another one");
  group.enough();
  for (const report of await Promise.all(clients)) {
    console.log(JSON.stringify(report));
    assert.deepEqual(report.wrong, []);
    assert.equal(report.logins, 0, "a connection was lost");
    assert.equal(report.again, 1, "a command failed, beside the one that tells of the login");
  }
}, { tables: quick });
