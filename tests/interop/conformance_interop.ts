// Without this, an answer that differs from the standards could reach an initiator that minds: libiscsi's 230 tests.
// docs/conformance.md gives the reason of each skip; a test that starts to be skipped fails here.

import { strict as assert } from "node:assert";
import { failsEverywhere, failsWith512, passesAlone, skipsMax, suiteNeeds, SuiteRun } from "./conformance.ts";
import { root, TargetProcess } from "./target_process.ts";
import { interop } from "./tools.ts";

interop("libiscsi's conformance suite: nothing fails, hangs or crashes", suiteNeeds, async () => {
  await using target = await TargetProcess.start({
    volumes: [{ name: "vol0", size: "1GiB" }, { name: "vol4", size: "1GiB", blockSize: 4096 }],
  });
  const run = await SuiteRun.at(target.url("vol0", 0), target.url("vol0", 1));
  await run.judge();
  const skipped = run.named("SKIP");
  assert.ok(skipped.length <= skipsMax, `${skipped.length} tests were skipped; ${skipsMax} are allowed`);
  // The first does pass: the tool says so by its exit status, the runner reads the refusals it logged. The third passes
  // on blocks of 4096 bytes.
  await passesAlone(failsEverywhere[0]!, [target.url()]);
  await passesAlone(failsWith512, [target.url("vol4")]);

  const reasons = await Deno.readTextFile(`${root}docs/conformance.md`);
  const explained = (name: string) => reasons.includes(name) || reasons.includes(name.replace(/\..*/, ".*"));
  const unexplained = [...skipped, ...run.named("FAIL")].filter((name) => !explained(name));
  assert.deepEqual(unexplained, [], "without a reason in docs/conformance.md");
  assert.equal((await target.stop()).code, 0);
});
