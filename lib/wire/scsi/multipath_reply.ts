// Replies to PLIMSOLL REPORT MULTIPATH (multipath.ts): a connection plan, a piece of a route table, what has changed in
// one, or the unit's record. Each carries its length and a checksum, and says of which volume it is: one that was cut or is another's is refused.

import { crc32c } from "../crc32c.ts";
import { bit, table, u16, u24, u32, u64, u8 } from "../field.ts";

export const multipathVersion = 1;

/** Header of every reply. */
export const MultipathReply = table({
  version: u8(0),
  kind: u8(1),
  epoch: u32(4),
  baseEpoch: u32(8),
  lengthBytes: u32(12),
  checksum: u32(16),
  pages: u32(20),
  firstPage: u32(24),
  entries: u32(28),
  image: u64(32),
  revision: u64(56),
});
export const multipathReplyBytes = 64;
const identifierAt = 40;
const checksumAt = MultipathReply.checksum.offset;

export const MultipathReplyKind = Object.freeze({
  plan: 1,
  /** One byte a page. */
  homes: 2,
  /** Pages in a row: their number (three bytes) and their home. */
  runs: 3,
  /** Changes since the base epoch: page (three bytes) and its home now. */
  changes: 4,
  /** The changes since that epoch are not known any more: ask for the table. */
  forgotten: 5,
  /** The unit's record, as the metadata has it; nothing: there is none. */
  unit: 6,
  /** What became of telling all members of a change of the record: `entries` is one of unitTold. */
  told: 7,
});

/** Of which volume a reply is. */
export interface MultipathVolume {
  readonly image: number;
  /** 16 bytes of VPD pages 80h and 83h. */
  readonly identifier: Uint8Array;
}

export interface ReplyHead {
  readonly epoch: number;
  readonly pages: number;
}

/** `first`, `homes`: one placement id a page from there on. The shorter of both forms. */
export function encodeHomes(
  volume: MultipathVolume,
  head: ReplyHead,
  firstPage: number,
  homes: Uint8Array,
): Uint8Array {
  const runs = runCount(homes);
  const asRuns = runs * entryBytes < homes.length;
  const bytes = begin(
    volume,
    head,
    asRuns ? MultipathReplyKind.runs : MultipathReplyKind.homes,
    asRuns ? runs * entryBytes : homes.length,
  );
  const view = viewOf(bytes);
  MultipathReply.firstPage.set(view, 0, firstPage);
  MultipathReply.entries.set(view, 0, asRuns ? runs : homes.length);
  if (!asRuns) bytes.set(homes, multipathReplyBytes);
  else {
    let at = multipathReplyBytes;
    for (let page = 0; page < homes.length;) {
      let end = page + 1;
      while (end < homes.length && homes[end] === homes[page]) end++;
      setEntry(view, at, end - page, homes[page]!);
      at += entryBytes;
      page = end;
    }
  }
  return sealed(bytes);
}

export interface RouteChange {
  readonly page: number;
  readonly placement: number;
}

export function encodeChanges(
  volume: MultipathVolume,
  head: ReplyHead,
  baseEpoch: number,
  changes: readonly RouteChange[],
): Uint8Array {
  const bytes = begin(volume, head, MultipathReplyKind.changes, changes.length * entryBytes);
  const view = viewOf(bytes);
  MultipathReply.baseEpoch.set(view, 0, baseEpoch);
  MultipathReply.entries.set(view, 0, changes.length);
  changes.forEach(({ page, placement }, i) =>
    setEntry(view, multipathReplyBytes + i * entryBytes, page, placement)
  );
  return sealed(bytes);
}

export function encodeForgotten(volume: MultipathVolume, head: ReplyHead, baseEpoch: number): Uint8Array {
  const bytes = begin(volume, head, MultipathReplyKind.forgotten, 0);
  MultipathReply.baseEpoch.set(viewOf(bytes), 0, baseEpoch);
  return sealed(bytes);
}

/** Of a change of the unit's record: obeyed by all, and nobody else is logged in; obeyed by all; nobody knows. */
export type UnitTold = "alone" | "shared" | "unknown";
const unitTold: readonly UnitTold[] = ["unknown", "alone", "shared"];

/** `revision`: of the record in the metadata; 0 and no bytes: there is none. */
export function encodeUnitReply(volume: MultipathVolume, revision: number, record: Uint8Array): Uint8Array {
  const bytes = begin(volume, noRoutes, MultipathReplyKind.unit, record.length);
  MultipathReply.revision.set(viewOf(bytes), 0, revision);
  bytes.set(record, multipathReplyBytes);
  return sealed(bytes);
}

export function encodeToldReply(volume: MultipathVolume, told: UnitTold): Uint8Array {
  const bytes = begin(volume, noRoutes, MultipathReplyKind.told, 0);
  MultipathReply.entries.set(viewOf(bytes), 0, unitTold.indexOf(told));
  return sealed(bytes);
}

/** One member as the plan tells of it; `run` is another with every start. */
export interface PlanMember {
  readonly name: string;
  readonly run: string;
  readonly up: boolean;
  readonly targetPortalGroupTag: number;
  /** "10.0.0.1:3260" */
  readonly portals: readonly string[];
}

/** One session to be made: numbers of the member and of its portal in the lists before. */
export interface PlanPath {
  readonly member: number;
  readonly portal: number;
  readonly initiatorPort: number;
}

export interface MultipathPlan {
  readonly sizeBytes: number;
  readonly pageBytes: number;
  readonly blockBytes: 512 | 4096;
  readonly writeCache: boolean;
  readonly writeProtected: boolean;
  readonly members: readonly PlanMember[];
  /** Placement ids and the number of their member. */
  readonly placements: readonly { readonly placement: number; readonly member: number }[];
  readonly paths: readonly PlanPath[];
}

const PlanBody = table({
  sizeBytes: u64(0),
  pageBytes: u32(8),
  blockBytes: u32(12),
  writeProtected: bit(16, 1),
  writeCache: bit(16, 0),
  members: u8(17),
  placements: u8(18),
  paths: u8(19),
});
const planBodyBytes = 24;
const PlanMemberHead = table({
  up: bit(0, 0),
  portals: u8(1),
  targetPortalGroupTag: u16(2),
});
const planMemberBytes = 4;

export function encodePlan(volume: MultipathVolume, head: ReplyHead, plan: MultipathPlan): Uint8Array {
  const body: Uint8Array[] = [];
  const fixed = new Uint8Array(planBodyBytes);
  const view = viewOf(fixed);
  PlanBody.sizeBytes.set(view, 0, plan.sizeBytes);
  PlanBody.pageBytes.set(view, 0, plan.pageBytes);
  PlanBody.blockBytes.set(view, 0, plan.blockBytes);
  PlanBody.writeProtected.set(view, 0, plan.writeProtected ? 1 : 0);
  PlanBody.writeCache.set(view, 0, plan.writeCache ? 1 : 0);
  PlanBody.members.set(view, 0, plan.members.length);
  PlanBody.placements.set(view, 0, plan.placements.length);
  PlanBody.paths.set(view, 0, plan.paths.length);
  body.push(fixed);
  body.push(Uint8Array.from(plan.placements.flatMap(({ placement, member }) => [placement, member])));
  for (const member of plan.members) {
    const one = new Uint8Array(planMemberBytes);
    const memberView = viewOf(one);
    PlanMemberHead.up.set(memberView, 0, member.up ? 1 : 0);
    PlanMemberHead.portals.set(memberView, 0, member.portals.length);
    PlanMemberHead.targetPortalGroupTag.set(memberView, 0, member.targetPortalGroupTag);
    body.push(one, ...[member.name, member.run, ...member.portals].map(counted));
  }
  body.push(Uint8Array.from(plan.paths.flatMap((p) => [p.member, p.portal, p.initiatorPort, 0])));
  const bytes = begin(
    volume,
    head,
    MultipathReplyKind.plan,
    body.reduce((sum, part) => sum + part.length, 0),
  );
  let at = multipathReplyBytes;
  for (const part of body) {
    bytes.set(part, at);
    at += part.length;
  }
  return sealed(bytes);
}

export type MultipathAnswer =
  | {
    readonly kind: "plan";
    readonly volume: MultipathVolume;
    readonly head: ReplyHead;
    readonly plan: MultipathPlan;
  }
  | {
    readonly kind: "homes";
    readonly volume: MultipathVolume;
    readonly head: ReplyHead;
    readonly firstPage: number;
    readonly homes: Uint8Array;
  }
  | {
    readonly kind: "changes";
    readonly volume: MultipathVolume;
    readonly head: ReplyHead;
    readonly baseEpoch: number;
    readonly changes: readonly RouteChange[];
  }
  | {
    readonly kind: "forgotten";
    readonly volume: MultipathVolume;
    readonly head: ReplyHead;
    readonly baseEpoch: number;
  }
  | {
    readonly kind: "unit";
    readonly volume: MultipathVolume;
    readonly revision: number;
    readonly record: Uint8Array;
  }
  | { readonly kind: "told"; readonly volume: MultipathVolume; readonly told: UnitTold }
  | { readonly kind: "bad"; readonly reason: string };

/** Takes a reply apart; whatever is wrong with it is said, never thrown. */
export function decodeMultipathReply(bytes: Uint8Array): MultipathAnswer {
  if (bytes.length < multipathReplyBytes) return bad(`it has ${bytes.length} bytes, fewer than its header`);
  const view = viewOf(bytes);
  const version = MultipathReply.version.get(view, 0);
  if (version !== multipathVersion) {
    return bad(`it has version ${version}, and version ${multipathVersion} is known`);
  }
  const length = MultipathReply.lengthBytes.get(view, 0);
  if (length !== bytes.length) return bad(`it has ${bytes.length} bytes and says ${length}`);
  if (MultipathReply.checksum.get(view, 0) !== checksumOf(bytes)) return bad("its checksum is wrong");
  const volume = {
    image: MultipathReply.image.get(view, 0),
    identifier: bytes.slice(identifierAt, identifierAt + 16),
  };
  const head = { epoch: MultipathReply.epoch.get(view, 0), pages: MultipathReply.pages.get(view, 0) };
  const baseEpoch = MultipathReply.baseEpoch.get(view, 0);
  const body = bytes.subarray(multipathReplyBytes);
  switch (MultipathReply.kind.get(view, 0)) {
    case MultipathReplyKind.plan: {
      const plan = decodePlan(body);
      return plan === null ? bad("its plan contradicts itself") : { kind: "plan", volume, head, plan };
    }
    case MultipathReplyKind.homes:
    case MultipathReplyKind.runs:
      return decodeHomes(view, body, volume, head);
    case MultipathReplyKind.changes: {
      const changes = decodeChanges(view, body, head);
      return changes === null
        ? bad("its changes contradict its header")
        : { kind: "changes", volume, head, baseEpoch, changes };
    }
    case MultipathReplyKind.forgotten:
      return { kind: "forgotten", volume, head, baseEpoch };
    case MultipathReplyKind.unit: {
      const revision = MultipathReply.revision.get(view, 0);
      return { kind: "unit", volume, revision, record: body.slice() };
    }
    case MultipathReplyKind.told: {
      const told = unitTold[MultipathReply.entries.get(view, 0)];
      return told === undefined
        ? bad("it tells an outcome that is not known")
        : { kind: "told", volume, told };
    }
    default:
      return bad("it is of a kind that is not known");
  }
}

function decodeHomes(
  view: DataView,
  body: Uint8Array,
  volume: MultipathVolume,
  head: ReplyHead,
): MultipathAnswer {
  const wrong = bad("its pages contradict its header");
  const firstPage = MultipathReply.firstPage.get(view, 0);
  const entries = MultipathReply.entries.get(view, 0);
  let homes: Uint8Array;
  if (MultipathReply.kind.get(view, 0) === MultipathReplyKind.homes) {
    if (entries !== body.length) return wrong;
    homes = body.slice();
  } else {
    if (entries * entryBytes !== body.length) return wrong;
    const bodyView = viewOf(body);
    let pages = 0;
    for (let i = 0; i < entries; i++) {
      pages += Entry.number.get(bodyView, i * entryBytes);
      if (firstPage + pages > head.pages) return wrong;
    }
    homes = new Uint8Array(pages);
    let page = 0;
    for (let i = 0; i < entries; i++) {
      const end = page + Entry.number.get(bodyView, i * entryBytes);
      homes.fill(Entry.placement.get(bodyView, i * entryBytes), page, end);
      page = end;
    }
  }
  if (firstPage + homes.length > head.pages || homes.includes(0)) return wrong;
  return { kind: "homes", volume, head, firstPage, homes };
}

function decodeChanges(view: DataView, body: Uint8Array, head: ReplyHead): RouteChange[] | null {
  const entries = MultipathReply.entries.get(view, 0);
  if (entries * entryBytes !== body.length) return null;
  const bodyView = viewOf(body);
  const changes: RouteChange[] = [];
  for (let i = 0; i < entries; i++) {
    const page = Entry.number.get(bodyView, i * entryBytes);
    const placement = Entry.placement.get(bodyView, i * entryBytes);
    if (page >= head.pages || placement === 0) return null;
    changes.push({ page, placement });
  }
  return changes;
}

function decodePlan(body: Uint8Array): MultipathPlan | null {
  if (body.length < planBodyBytes) return null;
  const view = viewOf(body);
  const blockBytes = PlanBody.blockBytes.get(view, 0);
  if (blockBytes !== 512 && blockBytes !== 4096) return null;
  const counts = {
    members: PlanBody.members.get(view, 0),
    placements: PlanBody.placements.get(view, 0),
    paths: PlanBody.paths.get(view, 0),
  };
  let at = planBodyBytes;
  const take = (length: number): Uint8Array | null => {
    if (at + length > body.length) return null;
    at += length;
    return body.subarray(at - length, at);
  };
  const pairs = take(counts.placements * 2);
  if (pairs === null) return null;
  const placements = Array.from({ length: counts.placements }, (_, i) => ({
    placement: pairs[2 * i]!,
    member: pairs[2 * i + 1]!,
  }));
  const text = (): string | null => {
    const length = take(1);
    const bytes = length === null ? null : take(length[0]!);
    return bytes === null ? null : textOf(bytes);
  };
  const members: PlanMember[] = [];
  for (let i = 0; i < counts.members; i++) {
    const head = take(planMemberBytes);
    if (head === null) return null;
    const headView = viewOf(head);
    const texts = Array.from({ length: 2 + PlanMemberHead.portals.get(headView, 0) }, text);
    if (texts.includes(null)) return null;
    const [name, run, ...portals] = texts as string[];
    members.push({
      name: name!,
      run: run!,
      up: PlanMemberHead.up.get(headView, 0) === 1,
      targetPortalGroupTag: PlanMemberHead.targetPortalGroupTag.get(headView, 0),
      portals,
    });
  }
  const quads = take(counts.paths * 4);
  if (quads === null || at !== body.length) return null;
  const paths = Array.from({ length: counts.paths }, (_, i) => ({
    member: quads[4 * i]!,
    portal: quads[4 * i + 1]!,
    initiatorPort: quads[4 * i + 2]!,
  }));
  const named = placements.every(({ placement, member }) => placement > 0 && member < members.length) &&
    paths.every((p) => p.initiatorPort > 0 && p.portal < (members[p.member]?.portals.length ?? 0));
  if (!named) return null;
  return {
    sizeBytes: PlanBody.sizeBytes.get(view, 0),
    pageBytes: PlanBody.pageBytes.get(view, 0),
    blockBytes,
    writeCache: PlanBody.writeCache.get(view, 0) === 1,
    writeProtected: PlanBody.writeProtected.get(view, 0) === 1,
    members,
    placements,
    paths,
  };
}

/** A run or a change: how many pages, or which. */
const Entry = table({ number: u24(0), placement: u8(3) });
const entryBytes = 4;

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: true });

function setEntry(view: DataView, at: number, number: number, placement: number): void {
  Entry.number.set(view, at, number);
  Entry.placement.set(view, at, placement);
}

function runCount(homes: Uint8Array): number {
  let runs = 0;
  for (let i = 0; i < homes.length; i++) if (i === 0 || homes[i] !== homes[i - 1]) runs++;
  return runs;
}

function begin(
  volume: MultipathVolume,
  head: ReplyHead,
  kind: number,
  bodyBytes: number,
): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(multipathReplyBytes + bodyBytes);
  const view = viewOf(bytes);
  MultipathReply.version.set(view, 0, multipathVersion);
  MultipathReply.kind.set(view, 0, kind);
  MultipathReply.epoch.set(view, 0, head.epoch);
  MultipathReply.lengthBytes.set(view, 0, bytes.length);
  MultipathReply.pages.set(view, 0, head.pages);
  MultipathReply.image.set(view, 0, volume.image);
  bytes.set(volume.identifier, identifierAt);
  return bytes;
}

function sealed(bytes: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  MultipathReply.checksum.set(viewOf(bytes), 0, checksumOf(bytes));
  return bytes;
}

/** Of everything, the checksum itself taken for zero. */
function checksumOf(bytes: Uint8Array): number {
  const before = crc32c(0, bytes, 0, checksumAt);
  return crc32c(crc32c(before, zeroes, 0, 4), bytes, checksumAt + 4, bytes.length);
}

const zeroes = new Uint8Array(4);
/** Replies about the unit tell nothing of its routes. */
const noRoutes: ReplyHead = Object.freeze({ epoch: 0, pages: 0 });

function counted(text: string): Uint8Array {
  const bytes = encoder.encode(text);
  const out = new Uint8Array(1 + Math.min(255, bytes.length));
  out[0] = out.length - 1;
  out.set(bytes.subarray(0, out.length - 1), 1);
  return out;
}

/** Null: it is no UTF-8. */
export function textOf(bytes: Uint8Array): string | null {
  try {
    return decoder.decode(bytes);
  } catch {
    return null;
  }
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
}

function bad(reason: string): { readonly kind: "bad"; readonly reason: string } {
  return { kind: "bad", reason };
}
