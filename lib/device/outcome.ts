// How the outcome of a block operation becomes status and sense: here and nowhere else (STYLE.md, rule 14).

import { unreachable } from "../base/assert.ts";
import type { BlockOutcome } from "../extent/operation.ts";
import { ScsiStatus } from "../session/task.ts";
import type { SenseData } from "../wire/scsi/sense.ts";
import { Sense } from "../wire/scsi/sense.ts";

/** What the initiator is told. `sense` is null for statuses other than CHECK CONDITION. */
export interface Verdict {
  readonly status: number;
  readonly sense: SenseData | null;
  /** The INFORMATION field tells the first block that failed (SBC-3 §4.18.1). */
  readonly tellsLba: boolean;
}

function check(sense: SenseData, tellsLba = false): Verdict {
  return Object.freeze({ status: ScsiStatus.checkCondition, sense, tellsLba });
}

const good: Verdict = Object.freeze({ status: ScsiStatus.good, sense: null, tellsLba: false });
const busy: Verdict = Object.freeze({ status: ScsiStatus.busy, sense: null, tellsLba: false });
const miscompare = check(Sense.miscompareDuringVerify);
const readError = check(Sense.unrecoveredReadError, true);
const writeError = check(Sense.writeError, true);
const noSpace = check(Sense.spaceAllocationFailed);
const writesStopped = check(Sense.internalTargetFailure);
const writesLost = check(Sense.writesLost);
/** LOGICAL UNIT COMMUNICATION FAILURE: the initiator decides whether to do it again. */
const interrupted = check(Sense.logicalUnitCommunicationFailure);
const writeProtected = check(Sense.writeProtected);
const notReady = check(Sense.manualInterventionRequired);

export function verdictOf(outcome: BlockOutcome): Verdict {
  switch (outcome) {
    case "done":
      return good;
    case "miscompare":
      return miscompare;
    case "mediumReadError":
      return readError;
    case "mediumWriteError":
      return writeError;
    case "noSpace":
      return noSpace;
    case "writesStopped":
      return writesStopped;
    case "writesLost":
      return writesLost;
    case "busy":
      return busy;
    case "notReady":
      return notReady;
    case "decidedStale": // the device server decides anew; told only where nothing can be
      return busy;
    case "writeProtected":
      return writeProtected;
    case "interrupted":
      return interrupted;
    default:
      return unreachable(outcome);
  }
}
