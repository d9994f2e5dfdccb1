// The member of one configuration, composed on an I/O engine: metadata, secret, disks, role. It runs in the main thread
// on the portable engine, and in the data-plane worker on the native one; nothing here knows which.

import { existsSync } from "node:fs";
import type { Clock } from "../lib/base/clock.ts";
import type { Log } from "../lib/base/log.ts";
import type { Network } from "../lib/base/network.ts";
import type { MemberConfig } from "../lib/config/mod.ts";
import { bootId, makeDirectoryOf, makePrivateFile, readTextIfThere } from "../lib/io/files.ts";
import { systemRandom } from "../lib/io/system_random.ts";
import type { Metadata } from "../lib/meta/metadata.ts";
import { openSqliteMetadata } from "../lib/meta/sqlite_metadata.ts";
import type { MemberControl } from "../lib/mgmt/control.ts";
import type { OpenDisk } from "../lib/roles/target/disks.ts";
import { Target } from "../lib/roles/target/target.ts";
import { CommandError } from "./terminal.ts";

export interface MemberEngine {
  readonly clock: Clock;
  readonly network: Network;
  readonly openDisk: OpenDisk;
  /** Sees to it that promises go on in this thread while `work` is under way. */
  readonly during: <T>(work: Promise<T>) => Promise<T>;
  /** Which one it is and why, for status and log. */
  readonly name: string;
  readonly reason: string;
}

/** A member that serves. */
export interface RunningMember {
  readonly control: MemberControl;
  reload(config: MemberConfig): Promise<void>;
  /** Ends it; `progress` gets a sentence a step. */
  stop(progress: (step: string) => void): Promise<void>;
}

/** Rejects with CommandError when the member cannot serve; everything is closed again then. */
export async function startMember(
  config: MemberConfig,
  engine: MemberEngine,
  log: Log,
): Promise<RunningMember> {
  let metadata: Metadata | null = null;
  try {
    for (const disk of config.disks) await makeDirectoryOf(disk.path);
    metadata = attended(await openMetadata(config), engine);
    const target = await Target.start(config, {
      clock: engine.clock,
      random: systemRandom,
      network: engine.network,
      log,
      metadata,
      secretFile: secretFile(config.group.secretFile),
      openDisk: engine.openDisk,
      exists: existsSync,
      readSecretFile: (path) => Deno.readTextFile(path),
      bootId: await bootId() ?? `unknown ${crypto.randomUUID()}`,
      engine: { name: engine.name, reason: engine.reason },
    });
    const opened = metadata;
    return {
      control: target.control,
      reload: (changed) => target.reload(changed),
      async stop(progress) {
        await target.stop(progress);
        await opened.close();
      },
    };
  } catch (error) {
    await metadata?.close();
    throw error instanceof Error ? new CommandError(error.message) : error;
  }
}

async function openMetadata(config: MemberConfig): Promise<Metadata> {
  const { metadata } = config.group;
  if (metadata.kind !== "sqlite") {
    throw new CommandError(
      `Cannot use metadata "etcd:…": this version keeps the group in SQLite only. Write metadata = "sqlite:PATH".`,
    );
  }
  await makeDirectoryOf(metadata.path);
  return await openSqliteMetadata(metadata.path);
}

/** The metadata's answers come from a worker, as messages: a native loop must know that somebody waits for them. */
function attended(metadata: Metadata, { during }: MemberEngine): Metadata {
  return {
    get: (key) => during(metadata.get(key)),
    list: (prefix) => during(metadata.list(prefix)),
    commit: (compares, changes) => during(metadata.commit(compares, changes)),
    watch: (prefix, afterRevision, seen, lost) => metadata.watch(prefix, afterRevision, seen, lost),
    grantLease: (ttlMs) => during(metadata.grantLease(ttlMs)),
    renewLease: (leaseId) => during(metadata.renewLease(leaseId)),
    revokeLease: (leaseId) => during(metadata.revokeLease(leaseId)),
    close: () => during(metadata.close()),
  };
}

function secretFile(path: string) {
  return {
    path,
    read: () => readTextIfThere(path),
    make: (text: string) => makePrivateFile(path, text),
    remove: () => Deno.remove(path),
  };
}
