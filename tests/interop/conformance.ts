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

/**
 * The test before this one leaves a reset behind that it does not wait for. When this one has logged in by then it is told by
 * a unit attention, which it does not expect. Alone it passes.
 */
const meetsReset = "MultipathIO.Simple";

/** More skips than there are reasons for in docs/conformance.md. */
export const skipsMax = 34;

export type Verdict = "PASS" | "SKIP" | "FAIL" | "HANG" | "CRASH";

export class SuiteRun {
  /** `rows`: name and verdict of each test. */
  private constructor(
    private readonly rows: readonly (readonly string[])[],
    private readonly urls: readonly string[],
  ) {}

  /** `url2` is another path to the same unit, for the tests of multipath; without it they are skipped. */
  static async at(url: string, url2: string | null): Promise<SuiteRun> {
    const verdicts = await Deno.makeTempFile({ prefix: "plimsoll-verdicts-" });
    try {
      const second = url2 === null ? [] : [url2];
      const args = [suite, url, "--tsv", verdicts, ...second.flatMap((other) => ["--url2", other])];
      const { output } = await finish("python3", args, { secondsMax: 480 });
      console.log(output.trim());
      assert.match(output, /PASS \d+, SKIP \d+, FAIL \d+, HANG \d+, CRASH \d+/, "there is no summary");
      const text = await Deno.readTextFile(verdicts);
      return new SuiteRun(text.trim().split("\n").map((line) => line.split("\t")), [url, ...second]);
    } finally {
      await Deno.remove(verdicts);
    }
  }

  named(verdict: Verdict): string[] {
    return this.rows.filter((r) => r[1] === verdict).map((r) => r[0]!.replace("ALL.", ""));
  }

  /** Fails when a test failed that no target passes, or hung or crashed, or when not all 230 ran. */
  async judge(): Promise<void> {
    const known = [...failsEverywhere, failsWith512];
    if (this.named("FAIL").includes(meetsReset)) {
      await passesAlone(meetsReset, this.urls);
      known.push(meetsReset);
    }
    const failed = this.named("FAIL").filter((name) => !known.includes(name));
    assert.deepEqual(
      [...failed, ...this.named("HANG"), ...this.named("CRASH")],
      [],
      "failed, hung or crashed",
    );
    assert.ok(this.rows.length >= 230, `${this.rows.length} tests ran, not 230`);
  }
}

export async function passesAlone(name: string, urls: readonly string[]): Promise<void> {
  const alone = await finish("iscsi-test-cu", ["-d", "-t", `ALL.${name}`, ...urls], { secondsMax: 60 });
  assert.equal(alone.code, 0, alone.output);
}
