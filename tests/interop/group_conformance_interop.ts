// Without this, a member could answer otherwise than another, or than a group of one: libiscsi's suite through each of three.

import { strict as assert } from "node:assert";
import { skipsMax, suiteNeeds, SuiteRun } from "./conformance.ts";
import { ThreeMembers } from "./three_members.ts";
import { interop } from "./tools.ts";

for (const keeper of ["sqlite", "etcd"] as const) {
  const needs = keeper === "etcd" ? [...suiteNeeds, "etcd"] : suiteNeeds;
  interop(`libiscsi's conformance suite through each of three members on ${keeper}`, needs, async () => {
    await using group = await ThreeMembers.start(keeper);
    await group.createVolume("wide", "1GiB");
    const { members } = group;
    for (const [i, member] of members.entries()) {
      const other = members[(i + 1) % members.length]!;
      const run = await SuiteRun.at(member.url("wide"), other.url("wide"));
      await run.judge();
      const skipped = run.named("SKIP");
      assert.ok(skipped.length <= skipsMax, `${skipped.length} tests were skipped; ${skipsMax} are allowed`);
      const multipath = run.named("PASS").filter((name) => name.startsWith("MultipathIO."));
      assert.ok(multipath.length >= 3, `the second path was used by ${multipath.length} tests`);
    }
    await group.stop();
  });
}
