// What the other members told of their load last. Reports that have aged count for nothing: a member that is not heard of
// is neither chosen nor compared with.

import type { LoadReport } from "./report_codec.ts";
import type { MemberTag } from "./view.ts";

interface Told {
  readonly report: LoadReport;
  readonly run: string;
  readonly heardMs: number;
  /** Logins sent there since. */
  sent: number;
}

export class LoadBoard {
  readonly #told = new Map<MemberTag, Told>();

  /** `freshMs`: how long a report counts. */
  constructor(private readonly freshMs: number) {}

  /** `run`: of the sender's process. False: it is older than what is known. */
  tell(report: LoadReport, run: string, nowMs: number): boolean {
    const before = this.#told.get(report.tag);
    const newer = before === undefined || before.run !== run ||
      ((report.sequence - before.report.sequence) | 0) > 0;
    if (!newer) return false;
    this.#told.set(report.tag, { report, run, heardMs: nowMs, sent: 0 });
    return true;
  }

  /** A login was sent to the member: it will be in its next report. */
  sent(tag: MemberTag): void {
    const told = this.#told.get(tag);
    if (told !== undefined) told.sent++;
  }

  /** Null: nothing that counts. */
  fresh(tag: MemberTag, nowMs: number): LoadReport | null {
    const told = this.#told.get(tag);
    if (told === undefined || nowMs - told.heardMs > this.freshMs) return null;
    return told.sent === 0 ? told.report : { ...told.report, expected: told.report.expected + told.sent };
  }
}
