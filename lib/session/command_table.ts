// The commands of one session: a pool, and the way from an Initiator Task Tag to its command.

import { limits } from "../base/limits.ts";
import { reservedTag } from "../wire/iscsi/bhs.ts";
import type { Command } from "./command.ts";

/** What a Target Transfer Tag has room for (data_out.ts). */
export const slotsMax = 255;
/** Answers with the stream whose places other commands have. */
const leavingMax = slotsMax - limits.commandsPerSessionMax - limits.immediateCommandsMax;

export class CommandTable {
  readonly #make: (slot: number) => Command;
  readonly #all: Command[] = [];
  readonly #free: Command[] = [];
  /** By slot; a scan of some dozen words is cheaper than a Map that changes with every command. */
  readonly #tags = new Uint32Array(slotsMax).fill(reservedTag);
  /** Tags whose data may still come although the command is over. */
  readonly #ended = new Uint32Array(limits.endedTagsMax).fill(reservedTag);
  #endedNext = 0;
  /** Numbered commands that hold a place of the window, and immediate ones in use. */
  numbered = 0;
  immediate = 0;
  #leaving = 0;

  constructor(make: (slot: number) => Command) {
    this.#make = make;
  }

  /** A command for `tag`, or null when too many are in use. */
  take(tag: number, immediate: boolean): Command | null {
    if (immediate) {
      if (this.immediate === limits.immediateCommandsMax) return null;
      this.immediate++;
    } else {
      if (this.numbered === limits.commandsPerSessionMax) return null;
      this.numbered++;
    }
    let command = this.#free.pop();
    if (command === undefined) {
      command = this.#make(this.#all.length);
      this.#all.push(command);
    }
    command.initiatorTaskTag = tag;
    command.immediate = immediate;
    command.holdsPlace = !immediate;
    command.state = "receiving";
    this.#tags[command.slot] = tag;
    return command;
  }

  give(command: Command): void {
    this.#tags[command.slot] = reservedTag;
    if (command.immediate) this.immediate--;
    else if (command.holdsPlace) this.numbered--;
    else this.#leaving--;
    command.reset();
    this.#free.push(command);
  }

  /** Another command may come in its place, as long as there is memory for both. */
  givePlace(command: Command): void {
    if (!command.holdsPlace || this.#leaving === leavingMax) return;
    command.holdsPlace = false;
    this.numbered--;
    this.#leaving++;
  }

  /** The tag is the initiator's to use again. */
  forgetTag(command: Command): void {
    this.#tags[command.slot] = reservedTag;
  }

  /** The command with this tag that has not been answered yet. */
  find(tag: number): Command | null {
    if (tag === reservedTag) return null;
    const tags = this.#tags;
    for (let slot = 0; slot < this.#all.length; slot++) {
      if (tags[slot] === tag) return this.#all[slot]!;
    }
    return null;
  }

  at(slot: number): Command | null {
    return this.#all[slot] ?? null;
  }

  /** Data for this tag may still come. */
  rememberEnded(tag: number): void {
    this.#ended[this.#endedNext] = tag;
    this.#endedNext = (this.#endedNext + 1) % limits.endedTagsMax;
  }

  hasEnded(tag: number): boolean {
    return this.#ended.includes(tag);
  }

  forEachInUse(visit: (command: Command) => void): void {
    for (const command of this.#all) {
      if (command.state !== "free") visit(command);
    }
  }
}
