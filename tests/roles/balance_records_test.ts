// Without this, members could spread clients by different policies.

import { strict as assert } from "node:assert";
import { silentLog } from "../../lib/base/log.ts";
import { MemoryMetadataStore } from "../../lib/meta/memory_metadata.ts";
import { BalanceRecords } from "../../lib/roles/target/balance_records.ts";
import { StandingClock } from "../meta/standing_clock.ts";

Deno.test("of two policies set at once the later one holds, whenever the answer to the earlier one comes", async () => {
  // Lost without it: a member that goes by a policy that another member has replaced.
  const clock = new StandingClock();
  const store = new MemoryMetadataStore(clock);
  const slow = store.connect();
  const commit = slow.commit.bind(slow);
  let answer: () => void = () => {};
  slow.commit = async (...args) => {
    const result = await commit(...args);
    await new Promise<void>((go) => answer = go);
    return result;
  };
  const alpha = new BalanceRecords({ metadata: slow, clock, log: silentLog }, "least-loaded");
  const beta = new BalanceRecords({ metadata: store.connect(), clock, log: silentLog }, "least-loaded");
  await alpha.follow();
  await beta.follow();
  const set = alpha.setPolicy("round-robin");
  for (let i = 0; i < 30; i++) await Promise.resolve();
  await beta.setPolicy("affinity");
  for (let i = 0; i < 30; i++) await Promise.resolve();
  answer();
  await set;
  assert.deepEqual([alpha.policy, beta.policy], ["affinity", "affinity"]);
  alpha.close();
  beta.close();
});
