// plimsoll target: serve the member of a configuration file until it is told to stop.

import type { Disk } from "../lib/base/disk.ts";
import type { Log } from "../lib/base/log.ts";
import { formatSocketAddress } from "../lib/base/network.ts";
import type { MemberConfig } from "../lib/config/mod.ts";
import { openFileDisk } from "../lib/io/file_disk.ts";
import { libc, libcMissing } from "../lib/io/native/libc.ts";
import { PortableNetwork } from "../lib/io/portable_network.ts";
import { systemClock } from "../lib/io/system_clock.ts";
import { systemRandom } from "../lib/io/system_random.ts";
import type { Metadata } from "../lib/meta/metadata.ts";
import { type AdminServer, startAdminServer } from "../lib/mgmt/http_server.ts";
import { loadOrMakeToken } from "../lib/mgmt/http_token.ts";
import { setUpLogging } from "./logging.ts";
import { readRoleConfig } from "./role_config.ts";
import { openMetadata } from "./metadata.ts";
import type { OpenDiskOptions } from "../lib/roles/target/disks.ts";
import { endOnOwnMistakes } from "./own_mistakes.ts";
import { type RunningMember, startMember } from "./target_member.ts";
import { startRemoteMember } from "./target_remote.ts";
import type { ServeOptions } from "./serve_options.ts";
import { stopSignal } from "./stop_signal.ts";
import { CommandError } from "./terminal.ts";

/** Resolves with the exit code once the member has stopped. */
export async function runTarget(options: ServeOptions): Promise<number> {
  const log = await setUpLogging({ level: options.logLevel, format: options.logFormat });
  const config = await readRoleConfig("member", options.config, (line) => log.warn(line));
  endOnOwnMistakes(log, () => Deno.exit(70)); // EX_SOFTWARE: systemd starts the member again
  const stop = stopSignal();
  let member: RunningMember | null = null;
  // From now on: a SIGHUP that nobody listens to ends the process.
  const reload = () => {
    if (member !== null) void reloadFrom(options.config, member, log);
  };
  Deno.addSignalListener("SIGHUP", reload);
  const running = await start(config, options, log);
  member = running.member;
  log.info("serving", { member: config.member.name, admin: running.adminUrl });

  const signal = await stop.received;
  log.info("stopping", { signal });
  Deno.removeSignalListener("SIGHUP", reload);
  await running.stop((step) => log.info(step));
  stop.forget();
  return 0;
}

interface Running {
  readonly member: RunningMember;
  readonly adminUrl: string;
  stop(progress: (step: string) => void): Promise<void>;
}

/** Starts the metadata, the member and its admin server; what was opened is closed again when a later part fails. */
async function start(config: MemberConfig, options: ServeOptions, log: Log): Promise<Running> {
  let metadata: Metadata | null = null;
  let member: RunningMember | null = null;
  let admin: AdminServer | null = null;
  const stop = async (progress: (step: string) => void = () => {}) => {
    await admin?.close();
    await member?.stop(progress);
    await metadata?.close();
  };
  try {
    const token = await loadOrMakeToken(`${config.member.stateDir}/admin.token`, systemRandom);
    metadata = await openMetadata(config.group, log);
    member = await startOnEngine(config, metadata, options, log);
    admin = startAdminServer({ address: config.member.admin, control: member.control, token, log });
    return { member, adminUrl: `http://${formatSocketAddress(config.member.admin)}`, stop };
  } catch (error) {
    await stop();
    throw error instanceof Error ? new CommandError(error.message) : error;
  }
}

/** The native engine where the machine has what it needs, unless the configuration asks for the portable one. */
async function startOnEngine(
  config: MemberConfig,
  metadata: Metadata,
  options: ServeOptions,
  log: Log,
): Promise<RunningMember> {
  const missing = config.member.engine === "portable"
    ? "the configuration asks for it"
    : libc() === null
    ? libcMissing()
    : null;
  if (missing === null) {
    return await startRemoteMember(config, metadata, log, {
      level: options.logLevel,
      format: options.logFormat,
    });
  }
  return await startMember(config, metadata, {
    clock: systemClock,
    network: new PortableNetwork(),
    openDisk: openPortableDisk,
    name: "portable",
    reason: missing,
  }, log);
}

function openPortableDisk(path: string, { createBytes, direct }: OpenDiskOptions): Disk {
  if (direct) {
    throw new Error(
      `Cannot open disk "${path}" with direct = true: the portable engine has no O_DIRECT. ` +
        `Leave direct out, or see in "plimsoll status" why the native engine does not run.`,
    );
  }
  return openFileDisk(path, createBytes === undefined ? {} : { createBytes });
}

/** SIGHUP: a configuration that is wrong changes nothing. */
async function reloadFrom(path: string, member: RunningMember, log: Log): Promise<void> {
  try {
    await member.reload(await readRoleConfig("member", path, (line) => log.warn(line)));
  } catch (error) {
    log.error("the configuration was not reloaded; the old one goes on", {
      reason: (error as Error).message,
    });
  }
}
