// The state of one logical unit that its commands share: settings and what follows from them, mode parameters,
// started or stopped. The device server changes it; commands read it.

import { limits } from "../base/limits.ts";
import type { BlockService } from "../extent/operation.ts";
import type { UnitLimits } from "../wire/scsi/inquiry.ts";
import type { ModeUnit, ModeValues } from "../wire/scsi/mode.ts";
import type { SenseData } from "../wire/scsi/sense.ts";
import { Sense } from "../wire/scsi/sense.ts";
import type { RunTarget } from "./extent_run.ts";
import type { LogicalUnitSettings } from "./logical_unit.ts";

/** Bytes of a physical block: what the disks below write in one piece. */
const physicalBlockBytes = 4096;

export class Unit {
  settings: LogicalUnitSettings;
  /** Capacity, blocks. */
  blocks = 0;
  /** Longest READ, WRITE and so on, blocks. */
  transferBlocksMax = 0;
  target: RunTarget;
  modes: ModeValues;
  /** Stopped by START STOP UNIT: commands to the medium are NOT READY. */
  stopped = false;
  /** The volume is going away: nothing is carried out any more. */
  closing = false;
  /** One block of zeroes, for WRITE SAME without data. */
  zeroBlock: Uint8Array;
  /** It tells which target port group is best for which blocks (REPORT REFERRALS). */
  readonly refers: boolean;
  readonly #blocks: BlockService;

  constructor(settings: LogicalUnitSettings, blocks: BlockService, refers = false) {
    this.refers = refers;
    this.#blocks = blocks;
    this.settings = settings;
    this.modes = defaultModes(settings);
    this.zeroBlock = new Uint8Array(settings.blockBytes);
    this.target = this.#apply(settings);
  }

  apply(settings: LogicalUnitSettings): void {
    this.target = this.#apply(settings);
  }

  #apply(settings: LogicalUnitSettings): RunTarget {
    const { image, pageBytes, blockBytes } = settings;
    this.settings = settings;
    this.blocks = Math.floor(settings.sizeBytes / blockBytes);
    this.transferBlocksMax = limits.transferBytesMax / blockBytes;
    return { blocks: this.#blocks, image, pageBytes, blockBytes };
  }

  get blockBytes(): number {
    return this.settings.blockBytes;
  }

  /** With the write cache off, every write is durable before GOOD. */
  get writeThrough(): boolean {
    return !this.modes.writeCache;
  }

  /** Why the medium may not be written to; null: it may. */
  get writeProtection(): SenseData | null {
    if (this.settings.writeProtected) return Sense.writeProtected;
    return this.modes.softwareWriteProtect ? Sense.softwareWriteProtected : null;
  }

  get blocksPerPhysicalExponent(): number {
    return Math.log2(physicalBlockBytes / this.settings.blockBytes);
  }

  get defaults(): ModeValues {
    return defaultModes(this.settings);
  }

  get modeUnit(): ModeUnit {
    return {
      blocks: this.blocks,
      blockBytes: this.settings.blockBytes,
      writeProtected: this.writeProtection !== null,
      current: this.modes,
      defaults: this.defaults,
    };
  }

  get limits(): UnitLimits {
    return {
      maximumCompareAndWriteBlocks: 1,
      maximumTransferBlocks: this.transferBlocksMax,
      maximumUnmapBlocks: limits.unmapBlocksMax,
      maximumUnmapDescriptors: limits.unmapDescriptorsMax,
      unmapGranularityBlocks: this.settings.pageBytes / this.settings.blockBytes,
      maximumWriteSameBlocks: limits.writeSameBlocksMax,
      transferGranularityBlocks: 2 ** this.blocksPerPhysicalExponent,
    };
  }
}

function defaultModes(settings: LogicalUnitSettings): ModeValues {
  return { writeCache: settings.writeCache, softwareWriteProtect: false, descriptorSense: false };
}
