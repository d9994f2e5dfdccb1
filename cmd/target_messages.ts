// What the main thread and the data-plane worker call on each other (lib/io/native/channel.ts). JSON values only.

import type { MemberConfig } from "../lib/config/mod.ts";
import type { SharedCellsMemory } from "../lib/device/shared_cells.ts";
import type { ChannelMemory } from "../lib/io/native/channel.ts";
import type { PeerLinkMemory } from "../lib/io/native/peer_link.ts";
import type { DrainPurpose } from "../lib/meta/records.ts";
import type { MetadataMethods, MetadataNews } from "../lib/meta/remote_metadata.ts";
import type {
  BalanceOpinion,
  BalanceReport,
  MemberReport,
  MoveReport,
  RouteReport,
  SessionReport,
  StatusReport,
  VolumeChange,
  VolumeCreation,
  VolumeReport,
} from "../lib/mgmt/control.ts";
import type { LogFormat, LogLevel } from "./logging.ts";

/** The one message that is posted to the owner of the data plane: everything else goes through the channel. */
export interface WorkerSetup {
  readonly channel: ChannelMemory;
  /** The I/O workers' links, of which the owner has side 0; none: the owner serves alone. */
  readonly links: readonly PeerLinkMemory[];
  /** By disk: flushes and punches under way (lib/io/native/exclusive_calls.ts). */
  readonly exclusives: Int32Array<SharedArrayBuffer>;
  readonly shared: SharedCellsMemory;
  /** Data buffers of each thread, and what it maps of a disk, bytes. */
  readonly bufferBytes: number;
  readonly mappedBytes: number;
  readonly cells: Int32Array<SharedArrayBuffer>;
  readonly logLevel: LogLevel;
  readonly logFormat: LogFormat;
}

/** Cells of the shared memory. */
export const Cell = Object.freeze({
  /** Counted up by every turn of the worker's loop, and within long ones. */
  heartbeat: 0,
  /** 1 once portals accept logins. */
  ready: 1,
  /** The lock of the packet filter's table (lib/io/native/thread_lock.ts). */
  packetFilter: 2,
  /** Heartbeats of the I/O workers, one behind the other. */
  workers: 3,
});

/** The one message that is posted to an I/O worker: everything else comes from the owner over the link. */
export interface IoWorkerSetup {
  readonly index: number;
  readonly link: PeerLinkMemory;
  readonly exclusives: Int32Array<SharedArrayBuffer>;
  readonly cells: Int32Array<SharedArrayBuffer>;
  readonly shared: SharedCellsMemory;
  readonly bufferBytes: number;
  readonly mappedBytes: number;
  readonly logLevel: LogLevel;
  readonly logFormat: LogFormat;
}

/** What an I/O worker posts to the main thread, if anything: a mistake of ours. */
export interface IoWorkerMistake {
  readonly mistake: string;
}

interface Method<A, R> {
  args: A;
  result: R;
}

/** Offered by the worker: the member, and who wants to hear of the metadata's changes. */
export type MemberMethods = MetadataNews & {
  readonly start: Method<MemberConfig, null>;
  readonly status: Method<null, StatusReport>;
  readonly members: Method<null, MemberReport[]>;
  readonly route: Method<string, RouteReport>;
  readonly sessions: Method<null, SessionReport[]>;
  readonly createVolume: Method<VolumeCreation, VolumeReport>;
  readonly setVolume: Method<{ name: string; change: VolumeChange }, VolumeReport>;
  readonly resizeVolume: Method<{ name: string; sizeBytes: number }, VolumeReport>;
  readonly deleteVolume: Method<string, null>;
  readonly drainMember: Method<{ name: string; purpose: DrainPurpose | null }, null>;
  readonly removeMember: Method<string, null>;
  readonly moveSession: Method<{ id: number; to: string; live: boolean }, MoveReport>;
  readonly balance: Method<null, BalanceReport>;
  readonly runBalance: Method<null, BalanceOpinion | null>;
  readonly setBalancePolicy: Method<string, null>;
  readonly reload: Method<MemberConfig, null>;
  readonly stop: Method<null, null>;
};

/** Offered by the main thread: the metadata's driver, and news of the worker. */
export type ProcessMethods = MetadataMethods & {
  /** A sentence about the stop that goes on. */
  readonly progress: Method<string, null>;
  /** The worker has met a mistake of ours. Deno.exit() in a worker would end it silently: the main thread ends all. */
  readonly mistake: Method<string, null>;
};
