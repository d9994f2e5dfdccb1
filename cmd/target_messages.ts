// What the main thread and the data-plane worker call on each other (lib/io/native/channel.ts). JSON values only.

import type { MemberConfig } from "../lib/config/mod.ts";
import type { ChannelMemory } from "../lib/io/native/channel.ts";
import type { MetadataMethods, MetadataNews } from "../lib/meta/remote_metadata.ts";
import type {
  SessionReport,
  StatusReport,
  VolumeChange,
  VolumeCreation,
  VolumeReport,
} from "../lib/mgmt/control.ts";
import type { LogFormat, LogLevel } from "./logging.ts";

/** The one message that is posted: everything else goes through the channel. */
export interface WorkerSetup {
  readonly channel: ChannelMemory;
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
  count: 2,
});

interface Method<A, R> {
  args: A;
  result: R;
}

/** Offered by the worker: the member, and who wants to hear of the metadata's changes. */
export type MemberMethods = MetadataNews & {
  readonly start: Method<MemberConfig, null>;
  readonly status: Method<null, StatusReport>;
  readonly sessions: Method<null, SessionReport[]>;
  readonly createVolume: Method<VolumeCreation, VolumeReport>;
  readonly setVolume: Method<{ name: string; change: VolumeChange }, VolumeReport>;
  readonly resizeVolume: Method<{ name: string; sizeBytes: number }, VolumeReport>;
  readonly deleteVolume: Method<string, null>;
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
