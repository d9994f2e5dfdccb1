// The member of one configuration, composed on an I/O engine: secret, disks, role. It runs in the main thread
// on the portable engine, and in the data-plane worker on the native one; nothing here knows which.

import { existsSync } from "node:fs";
import type { BufferMemory } from "../lib/base/buffer_pool.ts";
import { limits } from "../lib/base/limits.ts";
import type { Clock } from "../lib/base/clock.ts";
import type { FlowBorrower, FlowHome, FlowTaker } from "../lib/base/flow.ts";
import type { Log } from "../lib/base/log.ts";
import type { Network } from "../lib/base/network.ts";
import type { MemberConfig } from "../lib/config/mod.ts";
import { systemBootClock } from "../lib/io/boot_clock.ts";
import { bootId, makeDirectoryOf, makePrivateFile, readTextIfThere } from "../lib/io/files.ts";
import { systemMachine } from "../lib/io/machine.ts";
import { SystemFloatingAddress } from "../lib/io/native/floating_address.ts";
import { lockStateDirectory, type StateLock } from "../lib/io/state_lock.ts";
import { systemRandom } from "../lib/io/system_random.ts";
import type { Metadata } from "../lib/meta/metadata.ts";
import type { MemberControl } from "../lib/mgmt/control.ts";
import type { OpenDisk } from "../lib/roles/target/disks.ts";
import type { DataPlane } from "../lib/roles/target/data_plane.ts";
import { Target } from "../lib/roles/target/target.ts";
import { readSecretFile } from "./secret_file.ts";
import { CommandError } from "./terminal.ts";

export interface MemberEngine {
  readonly clock: Clock;
  readonly network: Network;
  readonly openDisk: OpenDisk;
  /** Other threads that serve connections, and the data buffers of this one, bytes. */
  readonly dataPlane?: DataPlane | null;
  readonly dataBufferBytes?: number;
  readonly poolMemory?: BufferMemory;
  /** For the short cut; where it is null, answers are forwarded. */
  readonly flows?: (FlowBorrower & FlowHome & FlowTaker) | null;
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

/** Rejects with CommandError when the member cannot serve. The metadata stays the caller's to close. */
export async function startMember(
  config: MemberConfig,
  metadata: Metadata,
  engine: MemberEngine,
  log: Log,
): Promise<RunningMember> {
  let lock: StateLock | null = null;
  try {
    const held = lock = await lockStateDirectory(config.member.stateDir);
    for (const disk of config.disks) await makeDirectoryOf(disk.path);
    const target = await Target.start(config, {
      clock: engine.clock,
      random: systemRandom,
      network: engine.network,
      log,
      metadata,
      secretFile: privateFile(config.group.secretFile),
      handedOverFile: privateFile(`${config.member.stateDir}/handed-over.json`),
      openDisk: engine.openDisk,
      exists: existsSync,
      readSecretFile,
      bootId: await bootId() ?? `unknown ${crypto.randomUUID()}`,
      engine: { name: engine.name, reason: engine.reason },
      dataPlane: engine.dataPlane ?? null,
      flows: engine.flows ?? null,
      floatingAddress: groupAddressOf(config, engine.clock),
      dataBufferBytes: engine.dataBufferBytes ?? limits.dataBufferBytesMax,
      ...(engine.poolMemory === undefined ? {} : { poolMemory: engine.poolMemory }),
      bootClock: systemBootClock(),
      machine: systemMachine(() => engine.clock.nowMs()),
      process: { lock: lock.name, pid: Deno.pid, host: Deno.hostname() },
    });
    return {
      control: target.control,
      reload: (changed) => target.reload(changed),
      async stop(progress) {
        await target.stop(progress);
        held.release();
      },
    };
  } catch (error) {
    lock?.release();
    throw error instanceof Error ? new CommandError(error.message) : error;
  }
}

/** Null: the group has none. */
export function groupAddressOf({ group, member }: MemberConfig, clock: Clock): SystemFloatingAddress | null {
  if (group.portal === null) return null;
  return new SystemFloatingAddress(group.portal.hostname, member.portals.map((p) => p.hostname), clock);
}

function privateFile(path: string) {
  return {
    path,
    read: () => readTextIfThere(path),
    make: (text: string) => makePrivateFile(path, text),
    remove: () => Deno.remove(path),
  };
}
