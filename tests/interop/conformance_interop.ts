// Without this, an answer that differs from the standards could reach an initiator that minds: libiscsi's 230 tests.
// docs/conformance.md gives the reason of each skip; a test that starts to be skipped fails here.

import { strict as assert } from "node:assert";
import { finish, interop, shared } from "./tools.ts";
import { root, TargetProcess } from "./target_process.ts";

/** No target passes these as the runner reads them; docs/conformance.md says why. */
const failsEverywhere = ["iSCSIdatasn.iSCSIDataSnInvalid", "iSCSITMF.LUNResetSimpleAsync"];
/** This one only where a physical block is a logical block: it asks about one block and expects another. */
const failsWith512 = "GetLBAStatus.UnmapSingle";

interop("libiscsi's conformance suite: nothing fails, hangs or crashes", [
  "iscsi-test-cu",
  "python3",
  `${shared}/conformance/run.py`,
], async () => {
  await using target = await TargetProcess.start({
    volumes: [{ name: "vol0", size: "1GiB" }, { name: "vol4", size: "1GiB", blockSize: 4096 }],
  });
  const { output } = await finish("python3", [
    `${shared}/conformance/run.py`,
    ...[target.url("vol0", 0), "--url2", target.url("vol0", 1)],
    ...["--tsv", `${target.directory}/verdicts.tsv`],
  ], { secondsMax: 480 });
  console.log(output.trim());
  const last = /PASS (\d+), SKIP (\d+), FAIL (\d+), HANG (\d+), CRASH (\d+)/.exec(output);
  assert.ok(last, `no summary in:\n${output}`);
  const rows = (await Deno.readTextFile(`${target.directory}/verdicts.tsv`)).split("\n").map((line) =>
    line.split("\t")
  );
  const named = (verdict: string) =>
    rows.filter((r) => r[1] === verdict).map((r) => r[0]!.replace("ALL.", ""));
  const failed = named("FAIL").filter((name) => ![...failsEverywhere, failsWith512].includes(name));
  assert.deepEqual([...failed, ...named("HANG"), ...named("CRASH")], [], "failed, hung or crashed");
  assert.ok(rows.length >= 230, `${rows.length} tests ran, not 230`);
  assert.ok(named("SKIP").length <= 34, `${named("SKIP").length} tests were skipped; 34 are allowed`);
  // The first does pass: the tool says so by its exit status, the runner reads the refusals it logged. The third passes
  // on blocks of 4096 bytes.
  for (const [name, url] of [[failsEverywhere[0], target.url()], [failsWith512, target.url("vol4")]]) {
    const alone = await finish("iscsi-test-cu", ["-d", "-t", `ALL.${name}`, url!], { secondsMax: 60 });
    assert.equal(alone.code, 0, alone.output);
  }

  const reasons = await Deno.readTextFile(`${root}docs/conformance.md`);
  const explained = (name: string) => reasons.includes(name) || reasons.includes(name.replace(/\..*/, ".*"));
  const unexplained = [...named("SKIP"), ...named("FAIL")].filter((name) => !explained(name));
  assert.deepEqual(unexplained, [], "without a reason in docs/conformance.md");
  assert.equal((await target.stop()).code, 0);
});
