// Without this, an answer that differs from the standards could reach an initiator that minds: libiscsi's 230 tests.
// docs/conformance.md gives the reason of each skip; a test that starts to be skipped fails here.

import { strict as assert } from "node:assert";
import { finish, interop, shared } from "./tools.ts";
import { root, TargetProcess } from "./target_process.ts";

interop("libiscsi's conformance suite: nothing fails, hangs or crashes", [
  "iscsi-test-cu",
  "python3",
  `${shared}/conformance/run.py`,
], async () => {
  await using target = await TargetProcess.start({ volumes: [{ name: "vol0", size: "1GiB" }] });
  const { output } = await finish("python3", [
    `${shared}/conformance/run.py`,
    ...[target.url("vol0", 0), "--url2", target.url("vol0", 1)],
    ...["--tsv", `${target.directory}/verdicts.tsv`],
  ], { secondsMax: 480 });
  console.log(output.trim());
  const last = /PASS (\d+), SKIP (\d+), FAIL (\d+), HANG (\d+), CRASH (\d+)/.exec(output);
  assert.ok(last, `no summary in:\n${output}`);
  const [pass, skip, fail, hang, crash] = last.slice(1).map(Number);
  assert.deepEqual({ fail, hang, crash }, { fail: 0, hang: 0, crash: 0 });
  assert.ok(pass! + skip! >= 230, `${pass! + skip!} tests ran, not 230`);
  assert.ok(skip! <= 34, `${skip} tests were skipped; 34 are known`);

  const reasons = await Deno.readTextFile(`${root}docs/conformance.md`);
  const skipped = (await Deno.readTextFile(`${target.directory}/verdicts.tsv`)).split("\n")
    .filter((line) => line.split("\t")[1] === "SKIP").map((line) => line.split("\t")[0]!.replace("ALL.", ""));
  assert.deepEqual(
    skipped.filter((name) => !reasons.includes(name)),
    [],
    "skipped, and not in docs/conformance.md",
  );
  assert.equal((await target.stop()).code, 0);
});
