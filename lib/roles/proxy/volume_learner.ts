// Keeps a copy of a volume's plan and route table in step with the members, by asking one of them (docs/vendor-commands.md).
// Whoever uses it hands in the paths, and is told when something has been learned.

import type { Clock, Timer } from "../../base/clock.ts";
import type { Log } from "../../base/log.ts";
import type { Path } from "../../forward/mod.ts";
import { MultipathIn, MultipathReport } from "../../wire/scsi/multipath.ts";
import { decodeMultipathReply, multipathReplyBytes } from "../../wire/scsi/multipath_reply.ts";
import { RouteCopy, type Taken } from "./route_copy.ts";

export interface VolumeLearnerParts {
  readonly clock: Clock;
  readonly log: Log;
  /** Of the volume. */
  readonly name: string;
  /** Whom to ask; null: nobody is there. */
  readonly anyOpen: () => Path | null;
  /** Why nothing could be learned. */
  readonly failed: (reason: string) => void;
  /** There was nobody to ask. */
  readonly nobody: () => void;
  /** The copy is what a member has told just now. */
  readonly learned: () => Promise<void>;
  /** What had the volume's name is gone, and another volume has it: the copy is empty. */
  readonly replaced: () => Promise<void>;
}

/** Without a word from the members, they are asked so often: a notice may have been lost with its session. */
export const askMs = 5_000;
const retryMs = 250;
const replyRoom = multipathReplyBytes + 65_536;

export class VolumeLearner {
  readonly copy = new RouteCopy();
  readonly #parts: VolumeLearnerParts;
  #timer: Timer | null = null;
  #asking = false;
  /** What has become known since the question that is being asked: it is asked again then. */
  #askAgain = false;
  /** Why the last question failed; "": it did not. */
  #trouble = "";
  #closed = false;

  constructor(parts: VolumeLearnerParts) {
    this.#parts = parts;
  }

  start(): void {
    this.#askLater(retryMs);
  }

  close(): void {
    this.#closed = true;
    this.#timer?.cancel();
  }

  /** Something may have changed. */
  ask(): void {
    if (this.#closed) return;
    this.#askAgain = true;
    if (this.#asking) return;
    this.#asking = true;
    void this.#askAll();
  }

  #askLater(afterMs: number): void {
    this.#timer?.cancel();
    if (!this.#closed) this.#timer = this.#parts.clock.after(afterMs, () => this.ask());
  }

  async #askAll(): Promise<void> {
    let failed = false;
    while (this.#askAgain && !failed && !this.#closed) {
      this.#askAgain = false;
      const path = this.#parts.anyOpen();
      if (path === null) {
        this.#parts.nobody();
        failed = true;
        break;
      }
      try {
        await this.#learn(path);
        this.#trouble = "";
      } catch (error) {
        failed = true;
        const reason = (error as Error).message;
        if (reason !== this.#trouble) {
          const { log, name } = this.#parts;
          log.warn("cannot learn where a volume's pages lie; trying again", {
            volume: name,
            member: path.place.member,
            reason,
          });
        }
        this.#trouble = reason;
        this.#parts.failed(reason);
      }
    }
    this.#asking = false;
    this.#askLater(failed ? retryMs : askMs);
  }

  async #learn(path: Path): Promise<void> {
    const first = await this.#question(path, MultipathReport.plan, (a) => this.copy.takePlan(a));
    let next = first;
    if (next === "taken") {
      next = await this.#question(path, MultipathReport.changes, (a) => this.copy.takeChanges(a));
    }
    if (next === "whole") await this.#learnWhole(path);
    if (!this.#closed) await this.#parts.learned();
  }

  async #learnWhole(path: Path): Promise<void> {
    const { sizeBytes, pageBytes } = this.copy.plan!;
    const chunks = this.copy.beginWhole(Math.ceil(sizeBytes / pageBytes));
    for (let chunk = 0; chunk < chunks; chunk++) {
      await this.#question(path, MultipathReport.table, (a) => this.copy.takeChunk(a), chunk);
    }
  }

  /** Throws with what is wrong with the answer. */
  async #question(
    path: Path,
    fn: number,
    take: (answer: ReturnType<typeof decodeMultipathReply>) => Taken,
    chunk = 0,
  ): Promise<"taken" | "whole"> {
    const cdb = new Uint8Array(16);
    const view = new DataView(cdb.buffer);
    const f = MultipathIn.fields;
    view.setUint8(0, MultipathIn.opcode);
    f.serviceAction.set(view, 0, MultipathIn.serviceAction!);
    f.version.set(view, 0, 1);
    f.function.set(view, 0, fn);
    f.chunk.set(view, 0, chunk);
    f.epoch.set(view, 0, this.copy.epoch);
    f.allocationLength.set(view, 0, replyRoom);
    const outcome = take(decodeMultipathReply(await path.ask(cdb, replyRoom)));
    switch (outcome.kind) {
      case "refused":
        throw new Error(`a reply of member "${path.place.member}" is refused: ${outcome.reason}`);
      case "otherVolume":
        this.copy.reset();
        await this.#parts.replaced();
        throw new Error("the volume was deleted, and another one has its name");
      default:
        return outcome.kind;
    }
  }
}
