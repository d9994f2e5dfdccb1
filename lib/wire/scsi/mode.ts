// Mode parameters (SPC-4 §7.5, SBC-3 §6.5): header, block descriptor, and the pages caching, control and informational
// exceptions control. Three bits can be changed; everything else is as it is.

import { bit, bits, table, u16, u24, u32, u64, u8 } from "../field.ts";
import type { SenseData } from "./sense.ts";
import { invalidFieldInParameterList, Sense } from "./sense.ts";

/** Mode parameter header of the six-byte commands (SPC-4 §7.5.5). */
export const ModeHeader6 = table({
  modeDataLength: u8(0),
  mediumType: u8(1),
  writeProtect: bit(2, 7),
  dpoFuaSupported: bit(2, 4),
  blockDescriptorLength: u8(3),
});

/** Mode parameter header of the ten-byte commands. */
export const ModeHeader10 = table({
  modeDataLength: u16(0),
  mediumType: u8(2),
  writeProtect: bit(3, 7),
  dpoFuaSupported: bit(3, 4),
  longLba: bit(4, 0),
  blockDescriptorLength: u16(6),
});

/** Short LBA mode parameter block descriptor (SBC-3 §6.5.2.2). */
export const ShortBlockDescriptor = table({ blocks: u32(0), blockBytes: u24(5) });
/** Long LBA mode parameter block descriptor (SBC-3 §6.5.2.3). */
export const LongBlockDescriptor = table({ blocks: u64(0), blockBytes: u32(12) });

/** Header of a mode page. */
export const ModePageHeader = table({
  parametersSaveable: bit(0, 7),
  subpageFormat: bit(0, 6),
  pageCode: bits(0, 0, 6),
  pageLength: u8(1),
});

/** SBC-3 §6.5.6 */
export const CachingPage = table({ writeCacheEnable: bit(2, 2), readCacheDisable: bit(2, 0) });
/** SPC-4 §7.5.8 */
export const ControlPage = table({
  taskSetType: bits(2, 5, 3),
  descriptorSense: bit(2, 2),
  queueAlgorithmModifier: bits(3, 4, 4),
  softwareWriteProtect: bit(4, 3),
  taskAbortedStatus: bit(5, 6),
  busyTimeoutPeriod: u16(8),
});
/** SBC-3 §6.5.8 */
export const InformationalExceptionsPage = table({
  disableExceptionControl: bit(2, 3),
  methodOfReporting: bits(3, 0, 4),
  intervalTimer: u32(4),
  reportCount: u32(8),
});

export const PageControl = Object.freeze({ current: 0, changeable: 1, defaults: 2, saved: 3 });

/** What MODE SELECT can change. */
export interface ModeValues {
  readonly writeCache: boolean;
  readonly softwareWriteProtect: boolean;
  readonly descriptorSense: boolean;
}

const cachingCode = 0x08;
const controlCode = 0x0a;
const exceptionsCode = 0x1c;
export const allPages = 0x3f;
export const allSubpages = 0xff;

/** What a MODE SENSE command asks for. */
export interface ModeSenseRequest {
  readonly long: boolean;
  readonly blockDescriptor: boolean;
  readonly longLba: boolean;
  readonly pageControl: number;
  readonly pageCode: number;
  readonly subpageCode: number;
}

export interface ModeUnit {
  readonly blocks: number;
  readonly blockBytes: number;
  /** Write protection of either origin, for the WP bit. */
  readonly writeProtected: boolean;
  readonly current: ModeValues;
  readonly defaults: ModeValues;
}

/** The answer to MODE SENSE, not yet cut at the allocation length; null: there is no such page. */
export function modeSense(request: ModeSenseRequest, unit: ModeUnit): Uint8Array | null {
  const pages = pagesOf(request, unit);
  if (pages === null) return null;
  const headerBytes = request.long ? 8 : 4;
  const long = request.long && request.longLba;
  const descriptorBytes = request.blockDescriptor ? (long ? 16 : 8) : 0;
  const pageBytes = pages.reduce((sum, p) => sum + p.length, 0);
  const bytes = new Uint8Array(headerBytes + descriptorBytes + pageBytes);
  const view = new DataView(bytes.buffer);
  const header = request.long ? ModeHeader10 : ModeHeader6;
  header.modeDataLength.set(view, 0, bytes.length - (request.long ? 2 : 1));
  header.writeProtect.set(view, 0, unit.writeProtected ? 1 : 0);
  header.dpoFuaSupported.set(view, 0, 1);
  header.blockDescriptorLength.set(view, 0, descriptorBytes);
  if (long && descriptorBytes > 0) ModeHeader10.longLba.set(view, 0, 1);
  if (descriptorBytes > 0) setBlockDescriptor(view, headerBytes, long, unit);
  let at = headerBytes + descriptorBytes;
  for (const page of pages) {
    bytes.set(page, at);
    at += page.length;
  }
  return bytes;
}

function setBlockDescriptor(view: DataView, at: number, long: boolean, unit: ModeUnit): void {
  const descriptor = long ? LongBlockDescriptor : ShortBlockDescriptor;
  descriptor.blocks.set(view, at, long ? unit.blocks : Math.min(unit.blocks, 0xffff_ffff));
  descriptor.blockBytes.set(view, at, unit.blockBytes);
}

function pagesOf(request: ModeSenseRequest, unit: ModeUnit): Uint8Array[] | null {
  const subpages = request.subpageCode;
  if (subpages !== 0 && subpages !== allSubpages) return null;
  const values = request.pageControl === PageControl.current
    ? unit.current
    : request.pageControl === PageControl.changeable
    ? changeable
    : unit.defaults;
  const build = request.pageControl === PageControl.changeable ? maskOf : pageOf;
  if (request.pageCode === allPages) return pageCodes.map((code) => build(code, values));
  return pageCodes.includes(request.pageCode) ? [build(request.pageCode, values)] : null;
}

const pageCodes: readonly number[] = [cachingCode, controlCode, exceptionsCode];
const changeable: ModeValues = { writeCache: true, softwareWriteProtect: true, descriptorSense: true };

function pageOf(code: number, values: ModeValues): Uint8Array {
  const bytes = blankPage(code);
  const view = new DataView(bytes.buffer);
  setChangeable(view, 0, code, values);
  if (code === controlCode) {
    ControlPage.taskSetType.set(view, 0, 1); // a task set for each I_T nexus
    ControlPage.queueAlgorithmModifier.set(view, 0, 1); // unrestricted reordering of simple tasks
    ControlPage.taskAbortedStatus.set(view, 0, 1); // whoever loses a task to another nexus is told at once
    ControlPage.busyTimeoutPeriod.set(view, 0, 0xffff); // busy without a bound
  }
  return bytes;
}

/** A page in which exactly the bits that can be changed are one (SPC-4 §6.13.1, page control 01b). */
function maskOf(code: number): Uint8Array {
  const bytes = blankPage(code);
  setChangeable(new DataView(bytes.buffer), 0, code, changeable);
  return bytes;
}

function setChangeable(view: DataView, at: number, code: number, values: ModeValues): void {
  if (code === cachingCode) CachingPage.writeCacheEnable.set(view, at, values.writeCache ? 1 : 0);
  if (code === controlCode) {
    ControlPage.descriptorSense.set(view, at, values.descriptorSense ? 1 : 0);
    ControlPage.softwareWriteProtect.set(view, at, values.softwareWriteProtect ? 1 : 0);
  }
}

function blankPage(code: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(code === cachingCode ? 20 : 12);
  const view = new DataView(bytes.buffer);
  ModePageHeader.pageCode.set(view, 0, code);
  ModePageHeader.pageLength.set(view, 0, bytes.length - 2);
  return bytes;
}

export type ModeSelectResult =
  | { readonly values: ModeValues; readonly sense: null }
  | { readonly values: null; readonly sense: SenseData };

/** Reads the parameter list of MODE SELECT. All pages are checked before anything is taken over. */
export function modeSelect(bytes: Uint8Array, long: boolean, unit: ModeUnit): ModeSelectResult {
  if (bytes.length === 0) return { values: unit.current, sense: null };
  const headerBytes = long ? 8 : 4;
  if (bytes.length < headerBytes) return refuse(Sense.parameterListLengthError);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const header = long ? ModeHeader10 : ModeHeader6;
  if (header.mediumType.get(view, 0) !== 0) return refuse(invalidFieldInParameterList(long ? 2 : 1));
  const longLba = long && ModeHeader10.longLba.get(view, 0) === 1;
  const descriptorBytes = header.blockDescriptorLength.get(view, 0);
  if (descriptorBytes !== 0 && descriptorBytes !== (longLba ? 16 : 8)) {
    return refuse(invalidFieldInParameterList(long ? 6 : 3));
  }
  if (bytes.length < headerBytes + descriptorBytes) return refuse(Sense.parameterListLengthError);
  if (descriptorBytes > 0 && !blockDescriptorFits(view, headerBytes, longLba, unit)) {
    return refuse(invalidFieldInParameterList(headerBytes));
  }
  return selectPages(bytes, view, headerBytes + descriptorBytes, unit);
}

function selectPages(bytes: Uint8Array, view: DataView, start: number, unit: ModeUnit): ModeSelectResult {
  let values = unit.current;
  for (let at = start; at < bytes.length;) {
    if (bytes.length - at < 2) return refuse(Sense.parameterListLengthError);
    const code = ModePageHeader.pageCode.get(view, at);
    if (ModePageHeader.subpageFormat.get(view, at) === 1 || !pageCodes.includes(code)) {
      return refuse(invalidFieldInParameterList(at));
    }
    const mask = maskOf(code);
    if (bytes[at + 1] !== mask.length - 2) return refuse(invalidFieldInParameterList(at + 1));
    if (bytes.length - at < mask.length) return refuse(Sense.parameterListLengthError);
    const now = pageOf(code, unit.current);
    for (let i = 2; i < mask.length; i++) {
      const wrong = (bytes[at + i]! ^ now[i]!) & ~mask[i]! & 0xff;
      if (wrong !== 0) return refuse(invalidFieldInParameterList(at + i, 31 - Math.clz32(wrong)));
    }
    values = taken(view, at, code, values);
    at += mask.length;
  }
  return { values, sense: null };
}

function taken(view: DataView, at: number, code: number, values: ModeValues): ModeValues {
  if (code === cachingCode) {
    return { ...values, writeCache: CachingPage.writeCacheEnable.get(view, at) === 1 };
  }
  if (code === controlCode) {
    return {
      ...values,
      descriptorSense: ControlPage.descriptorSense.get(view, at) === 1,
      softwareWriteProtect: ControlPage.softwareWriteProtect.get(view, at) === 1,
    };
  }
  return values;
}

/** The capacity and block size of a volume are not changed by MODE SELECT; 0 and all ones mean "as it is". */
function blockDescriptorFits(view: DataView, at: number, long: boolean, unit: ModeUnit): boolean {
  const descriptor = long ? LongBlockDescriptor : ShortBlockDescriptor;
  const blocks = descriptor.blocks.get(view, at);
  const all = long ? 2 ** 64 : 0xffff_ffff;
  const blocksFit = blocks === 0 || blocks >= all || blocks === unit.blocks;
  return blocksFit && descriptor.blockBytes.get(view, at) === unit.blockBytes;
}

function refuse(sense: SenseData): ModeSelectResult {
  return { values: null, sense };
}
