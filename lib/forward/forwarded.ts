// One block operation on its way to another member: the operation, the command that carries it, and how far it has come.

import { BlockOperation, type BlockOutcome } from "../extent/operation.ts";
import { InitiatorCommand } from "../session/initiator/mod.ts";
import { ScsiStatus } from "../session/task.ts";
import { blockStatusBytes, BlockStatusData, EnvelopeSense, readEnvelopeSense } from "../wire/scsi/forward.ts";
import { numberedLunHigh, numberedLunLow } from "../wire/scsi/lun.ts";
import { dataInBytes, dataOutBytes, encodeEnvelope, encodeMove, outcomeOf, type Route } from "./envelope.ts";

/** What a home has said. */
export type Answer =
  | { readonly kind: "ended" }
  /** Not carried out; the home's table has this epoch. */
  | { readonly kind: "stale"; readonly epoch: number }
  /** Not carried out, and may be sent again after a while. */
  | { readonly kind: "later" }
  /** Not carried out, and never will be: why, for the log. */
  | { readonly kind: "refused"; readonly reason: string };

/**
 * waiting: in its link's queue. sent: with the home. unknown: sent, and the session was lost before the answer: the home
 * may still be at it. rerouting: was sent to a member that is not the page's home; waits for a newer route table.
 */
export type ForwardedState = "idle" | "waiting" | "sent" | "unknown" | "rerouting";

export class Forwarded {
  readonly command: InitiatorCommand = new InitiatorCommand();
  readonly route: Route = { placement: 0, epoch: 0, hops: 0 };
  operation: BlockOperation = none;
  state: ForwardedState = "idle";
  /** The member it was sent to last, and the number of the login whose session carried it. */
  home = "";
  login = 0;
  /** When it was submitted, by the clock. */
  sinceMs = 0;
  /** Times that it was told "stale epoch" in a row. */
  stale = 0;
  /** Nobody wants it any more. */
  cancelled = false;
  readonly #view: DataView;
  readonly #statusData = new Uint8Array(blockStatusBytes);

  constructor(done: (forwarded: Forwarded) => void) {
    const { cdb } = this.command;
    this.#view = new DataView(cdb.buffer, cdb.byteOffset, cdb.length);
    this.command.done = () => done(this);
  }

  /** Bytes of buffers that it keeps from others. */
  get heldBytes(): number {
    return dataOutBytes(this.operation) + dataInBytes(this.operation);
  }

  /** Puts the operation into the command: data goes to and comes from the operation's own buffer. */
  load(): void {
    const { operation, command } = this;
    if (operation.moveStep === null) encodeEnvelope(this.#view, operation, this.route);
    else encodeMove(this.#view, operation, this.route);
    command.lunHigh = numberedLunHigh(operation.image);
    command.lunLow = numberedLunLow(operation.image);
    const out = dataOutBytes(operation), into = dataInBytes(operation);
    command.dataOut = out > 0 ? operation.buffer : null;
    command.dataOutStart = operation.bufferStart;
    command.dataOutLength = out;
    command.dataIn = into === 0 ? null : operation.kind === "read" ? operation.buffer : this.#statusData;
    command.dataInStart = operation.kind === "read" ? operation.bufferStart : 0;
    command.dataInLength = into;
  }

  /** What the completed command says; an ended operation has its outcome then. */
  takeAnswer(): Answer {
    const { command, operation } = this;
    if (command.response !== 0) return later;
    if (command.status === ScsiStatus.good) return this.#good();
    if (command.status !== ScsiStatus.checkCondition) return later; // BUSY, TASK SET FULL, TASK ABORTED
    const sense = readEnvelopeSense(command.sense);
    switch (sense?.code) {
      case EnvelopeSense.outcome: {
        const outcome = outcomeOf(sense.qualifier);
        if (outcome === null) return { kind: "refused", reason: `unknown outcome ${sense.qualifier}` };
        operation.outcome = outcome;
        if (outcome === "miscompare") operation.miscompareOffsetBytes = sense.information;
        return ended;
      }
      case EnvelopeSense.staleEpoch:
        return { kind: "stale", epoch: sense.information };
      case EnvelopeSense.tooManyHops:
        return later;
      case EnvelopeSense.otherVersion:
        return { kind: "refused", reason: `it speaks version ${sense.information} of the member protocol` };
      case EnvelopeSense.malformed:
        return { kind: "refused", reason: "it says that the envelope contradicts itself" };
      default: // of the session: data that never came, a digest
        return later;
    }
  }

  end(outcome: BlockOutcome): void {
    const operation = this.drop();
    operation.outcome = outcome;
    operation.done(operation);
  }

  /** Lets go of the operation without ending it. */
  drop(): BlockOperation {
    const { operation } = this;
    this.operation = none;
    this.state = "idle";
    this.command.dataOut = null;
    this.command.dataIn = null;
    operation.ticket = null;
    return operation;
  }

  #good(): Answer {
    const { command, operation } = this;
    if (command.dataInReceived !== command.dataInLength) {
      return { kind: "refused", reason: "data is missing" };
    }
    if (operation.kind === "status") {
      const view = new DataView(this.#statusData.buffer);
      operation.mapped = BlockStatusData.mapped.get(view, 0) === 1;
      operation.mappedLengthBytes = BlockStatusData.lengthBytes.get(view, 0);
    }
    operation.outcome = "done";
    return ended;
  }
}

const none = new BlockOperation();
const ended: Answer = { kind: "ended" };
const later: Answer = { kind: "later" };
