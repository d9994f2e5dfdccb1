// What the group keeps in its metadata: one record a key, JSON text in UTF-8. Names of keys and shapes of records are
// here and nowhere else; every record carries the version of its shape.

/** Keys. Names of volumes and members are checked by `nameProblem` in lib/config before they get here. */
export const keys = Object.freeze({
  group: "group",
  /** Next free image number, decimal. Never goes back: a number is never used again. */
  nextImage: "next/image",
  /** Next free target portal group tag, decimal; likewise. */
  nextPortalGroup: "next/portal-group",
  /** Next free placement id, decimal; likewise (1 to 255). */
  nextPlacement: "next/placement",
  member: (name: string) => `member/${name}`,
  memberPrefix: "member/",
  /** Bound to the lease of the process that is the member now (membership.ts). */
  live: (name: string) => `live/${name}`,
  livePrefix: "live/",
  disk: (id: string) => `disk/${id}`,
  diskPrefix: "disk/",
  /** Room on the disk of a placement id, told by its member now and then: what plans of new pages go by. */
  usage: (placement: number) => `usage/${placement}`,
  usagePrefix: "usage/",
  volume: (name: string) => `volume/${name}`,
  volumePrefix: "volume/",
  /** Every volume name the group has ever had: a name of a file made or deleted once is not made again by a start. */
  volumeName: (name: string) => `volume-name/${name}`,
  volumeNamePrefix: "volume-name/",
  /** Writes of the image were lost to a power failure: who has been told (lib/roles/target/lost_writes.ts). */
  writesLost: (image: number) => `writes-lost/${image}`,
  writesLostPrefix: "writes-lost/",
  /** A member has given its pages of a volume that is being deleted back. */
  freed: (image: number, member: string) => `freed/${image}/${member}`,
  freedPrefix: (image: number) => `freed/${image}/`,
  /** The member is to be emptied, as long as this is there. */
  drain: (member: string) => `drain/${member}`,
  drainPrefix: "drain/",
  /** What all members know alike of a logical unit; bytes of the device server (lib/device/unit_record.ts). */
  unit: (image: number) => `unit/${image}`,
  unitPrefix: "unit/",
  /** What was set at run time of how clients are spread. */
  balance: "balance",
  /** Who holds the group's address; bound to a lease of its own. */
  groupAddress: "group-address",
  /** Raw bytes, not JSON: one placement id a page, `routeChunkPages` pages a key. */
  route: (image: number, chunk: number) => `route/${image}/${String(chunk).padStart(6, "0")}`,
  routePrefix: (image: number) => `route/${image}/`,
});

export const routeChunkPages = 65_536;

export interface GroupRecord {
  readonly version: 1;
  /** 32 hexadecimal digits, random; superblocks carry it. */
  readonly id: string;
  readonly name: string;
  readonly createdMs: number;
  readonly iqnPrefix: string;
  readonly pageBytes: number;
  /** SHA-256 of the group secret, hexadecimal: tells a wrong secret file from a right one. */
  readonly secretHash: string;
}

export interface MemberRecord {
  readonly version: 1;
  readonly name: string;
  /** 32 hexadecimal digits, random; superblocks carry it. */
  readonly id: string;
  readonly targetPortalGroupTag: number;
  readonly relativeTargetPort: number;
}

/** "down" is not written: it is a member without a live record. */
export type MemberState = "joining" | "up" | "draining";

/** The process that is a member just now. Gone when its lease is. */
export interface LiveRecord {
  readonly version: 1;
  readonly name: string;
  /** Of its MemberRecord. */
  readonly member: string;
  /** Random, of this start. */
  readonly run: string;
  readonly state: MemberState;
  /** "10.0.0.1:3260" */
  readonly portals: readonly string[];
  readonly peer: string;
  /** Version of its program. */
  readonly program: string;
  /** Of its machine. */
  readonly bootId: string;
  /** Which lock its process holds, on that boot of the machine; null: none. */
  readonly lock: string | null;
  readonly pid: number;
  readonly host: string;
  /** Wall clock of its start, milliseconds since 1970. */
  readonly sinceMs: number;
  /** HMAC over the rest and the lease, by the group's secret (live_members.ts). */
  readonly proof: string;
}

export interface DiskRecord {
  readonly version: 1;
  /** 32 hexadecimal digits, random; the superblock carries it. */
  readonly id: string;
  readonly member: string;
  readonly path: string;
  readonly sizeBytes: number;
  readonly slots: number;
  /** Placement id of route tables that stands for this (member, disk). */
  readonly placement: number;
}

/** Room on a disk, as its member last told. */
export interface UsageRecord {
  readonly version: 1;
  readonly availableSlots: number;
  /** Pages with a slot, by image. */
  readonly allocated: Readonly<Record<string, number>>;
}

export interface BalanceRecord {
  readonly version: 1;
  /** A LoginPolicy (lib/balance/view.ts). */
  readonly policy: string;
}

/** The process that has the group's address. Gone when its lease is. */
export interface GroupAddressRecord {
  readonly version: 1;
  /** "10.0.0.100:3260" */
  readonly address: string;
  /** Name of the member, and its start (LiveRecord.run). */
  readonly holder: string;
  readonly run: string;
}

/** Why a member is emptied: to leave the group, or to be started anew, for which its pages stay. */
export const drainPurposes = ["leave", "restart"] as const;
export type DrainPurpose = (typeof drainPurposes)[number];

/** While it is there, its member takes no logins, and its clients (and pages, unless it only restarts) go elsewhere. */
export interface DrainRecord {
  readonly version: 1;
  /** Wall clock, milliseconds since 1970. */
  readonly sinceMs: number;
  /** Without it: "leave". */
  readonly purpose?: DrainPurpose;
  /** Of a restart: the member has done what it can, and so many sessions stay at it. */
  readonly ready?: { readonly staying: number };
}

export interface ChapRecord {
  readonly user: string;
  readonly secret: string;
}

/** "local" counts twice where a client's pages lie; clients of "fixed" are not moved but by an operator. */
export const volumeClasses = ["normal", "local", "fixed"] as const;
export type VolumeClass = (typeof volumeClasses)[number];

export interface VolumeRecord {
  readonly version: 1;
  readonly name: string;
  /** 32 hexadecimal digits, random: the identifier of VPD page 83, never derived from a name. */
  readonly id: string;
  /** Image number: what slots of stores belong to. */
  readonly image: number;
  readonly sizeBytes: number;
  readonly blockBytes: number;
  readonly pageBytes: number;
  readonly writeCache: boolean;
  readonly writeProtected: boolean;
  /** Initiator name patterns with `*`; null: not set (loopback portals only, unless chap is set). */
  readonly initiators: readonly string[] | null;
  readonly chap: ChapRecord | null;
  readonly mutual: ChapRecord | null;
  /** Members that its pages lie on, also when it grows; absent: all. */
  readonly members?: readonly string[];
  /** How its clients are treated when load is spread (docs/balancing.md); absent: "normal". */
  readonly volumeClass?: VolumeClass;
  /** Grows by one with every change of size or routes. */
  readonly epoch: number;
  /** The last changes of routes: at which epoch, and the chunk of routes that changed. */
  readonly routeChanges?: readonly (readonly [epoch: number, chunk: number])[];
  readonly createdMs: number;
  /** "deleting": no logins; its slots are being given back. */
  readonly state: "online" | "deleting";
  /** With "deleting": it is being made, and its routes are not complete; no page of it has been written. */
  readonly unfinished?: true;
}

/** Acknowledged writes of an image may be gone, and some initiators have not heard of it. */
export interface WritesLostRecord {
  readonly version: 1;
  /** Wall clock of the start that found out, milliseconds since 1970. */
  readonly foundMs: number;
  /** Names of initiator ports (RFC 7143 §4.4.5) that know. */
  readonly told: readonly string[];
}

const encoder = new TextEncoder();
const decoder = new TextDecoder();

export function encodeRecord(record: { readonly version: 1 }): Uint8Array {
  return encoder.encode(JSON.stringify(record));
}

/** Written by newer software, or by nobody of us. */
export class UnreadableRecord extends Error {}

/** Throws UnreadableRecord when the value is no record of a version this program knows. */
export function decodeRecord<T extends { readonly version: 1 }>(key: string, value: Uint8Array): T {
  let record: T | null;
  try {
    record = JSON.parse(decoder.decode(value)) as T | null;
  } catch (error) {
    throw new UnreadableRecord(`Metadata record "${key}" is damaged: ${(error as Error).message}.`);
  }
  if (record?.version !== 1) {
    throw new UnreadableRecord(
      `Metadata record "${key}" has version ${record?.version}, and this program knows version 1. Start the newer program that wrote it.`,
    );
  }
  return record;
}

export function encodeNumber(value: number): Uint8Array {
  return encoder.encode(String(value));
}

export function decodeNumber(value: Uint8Array): number {
  return Number(decoder.decode(value));
}
