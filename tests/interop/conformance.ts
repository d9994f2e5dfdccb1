// A run of libiscsi's conformance suite (../shared/conformance/run.py), and what no target passes in it.

import { strict as assert } from "node:assert";
import { finish, shared } from "./tools.ts";

const suite = `${shared}/conformance/run.py`;
/** What the suite needs to run. */
export const suiteNeeds = ["iscsi-test-cu", "python3", suite];

/** No target passes these as the runner reads them; docs/conformance.md says why. */
export const failsEverywhere = ["iSCSIdatasn.iSCSIDataSnInvalid", "iSCSITMF.LUNResetSimpleAsync"];
/** This one only where a physical block is a logical block: it asks about one block and expects another. */
export const failsWith512 = "GetLBAStatus.UnmapSingle";

/** More skips than there are reasons for in docs/conformance.md. */
export const skipsMax = 34;

export type Verdict = "PASS" | "SKIP" | "FAIL" | "HANG" | "CRASH";

export class SuiteRun {
  /** `rows`: name and verdict of each test. */
  private constructor(private readonly rows: readonly (readonly string[])[]) {}

  /** `url2` is another path to the same unit, for the tests of multipath; without it they are skipped. */
  static async at(url: string, url2: string | null): Promise<SuiteRun> {
    const verdicts = await Deno.makeTempFile({ prefix: "plimsoll-verdicts-" });
    try {
      const args = [suite, url, "--tsv", verdicts, ...url2 === null ? [] : ["--url2", url2]];
      const { output } = await finish("python3", args, { secondsMax: 480 });
      console.log(output.trim());
      assert.match(output, /PASS \d+, SKIP \d+, FAIL \d+, HANG \d+, CRASH \d+/, "there is no summary");
      const text = await Deno.readTextFile(verdicts);
      return new SuiteRun(text.trim().split("\n").map((line) => line.split("\t")));
    } finally {
      await Deno.remove(verdicts);
    }
  }

  named(verdict: Verdict): string[] {
    return this.rows.filter((r) => r[1] === verdict).map((r) => r[0]!.replace("ALL.", ""));
  }

  /** Fails when a test failed that `mayFail` does not have, or hung or crashed, or when not all 230 ran. */
  judge(mayFail: (name: string) => boolean = () => false): void {
    const known = [...failsEverywhere, failsWith512];
    const failed = this.named("FAIL").filter((name) => !known.includes(name) && !mayFail(name));
    assert.deepEqual(
      [...failed, ...this.named("HANG"), ...this.named("CRASH")],
      [],
      "failed, hung or crashed",
    );
    assert.ok(this.rows.length >= 230, `${this.rows.length} tests ran, not 230`);
  }
}
