// plimsoll target: serve the member of a configuration file until it is told to stop.

import { existsSync } from "node:fs";
import type { Log } from "../lib/base/log.ts";
import { formatSocketAddress } from "../lib/base/network.ts";
import type { MemberConfig } from "../lib/config/mod.ts";
import { openFileDisk } from "../lib/io/file_disk.ts";
import { bootId, makeDirectoryOf, makePrivateFile, readTextIfThere } from "../lib/io/files.ts";
import { PortableNetwork } from "../lib/io/portable_network.ts";
import { systemClock } from "../lib/io/system_clock.ts";
import { systemRandom } from "../lib/io/system_random.ts";
import type { Metadata } from "../lib/meta/metadata.ts";
import { openSqliteMetadata } from "../lib/meta/sqlite_metadata.ts";
import { type AdminServer, startAdminServer } from "../lib/mgmt/http_server.ts";
import { loadOrMakeToken } from "../lib/mgmt/http_token.ts";
import { Target } from "../lib/roles/target/target.ts";
import { readMemberConfig } from "./member_config.ts";
import { setUpLogging } from "./logging.ts";
import { CommandError } from "./terminal.ts";

export interface TargetOptions {
  readonly config: string;
  readonly logLevel: "debug" | "info" | "warn" | "error";
  readonly logFormat: "text" | "json";
}

/** `deno task` and a terminal send one signal twice: what comes within this time counts once, milliseconds. */
const signalRepeatMs = 1_000;

/** Resolves with the exit code once the member has stopped. */
export async function runTarget(options: TargetOptions): Promise<number> {
  const log = await setUpLogging({ level: options.logLevel, format: options.logFormat });
  const config = await readMemberConfig(options.config, (line) => log.warn(line));
  endOnOwnMistakes(log);
  const stop = stopSignal();
  let target: Target | null = null;
  // From now on: a SIGHUP that nobody listens to ends the process.
  const reload = () => {
    if (target !== null) void reloadFrom(options.config, target, log);
  };
  Deno.addSignalListener("SIGHUP", reload);
  const running = await start(config, log);
  target = running.target;
  log.info("serving", { member: config.member.name, admin: running.adminUrl });

  const signal = await stop.received;
  log.info("stopping", { signal });
  Deno.removeSignalListener("SIGHUP", reload);
  await running.stop((step) => log.info(step));
  stop.forget();
  return 0;
}

interface Running {
  readonly target: Target;
  readonly adminUrl: string;
  stop(progress: (step: string) => void): Promise<void>;
}

/** Starts everything, from the metadata up; what was opened is closed again when a later part fails. */
async function start(config: MemberConfig, log: Log): Promise<Running> {
  let metadata: Metadata | null = null;
  let target: Target | null = null;
  let admin: AdminServer | null = null;
  const stop = async (progress: (step: string) => void = () => {}) => {
    await admin?.close();
    await target?.stop(progress);
    await metadata?.close();
  };
  try {
    for (const disk of config.disks) await makeDirectoryOf(disk.path);
    const token = await loadOrMakeToken(`${config.member.stateDir}/admin.token`, systemRandom);
    metadata = await openMetadata(config);
    target = await Target.start(config, {
      clock: systemClock,
      random: systemRandom,
      network: new PortableNetwork(),
      log,
      metadata,
      secretFile: secretFile(config.group.secretFile),
      openDisk: (path, createBytes) => openFileDisk(path, createBytes === undefined ? {} : { createBytes }),
      exists: existsSync,
      readSecretFile: (path) => Deno.readTextFile(path),
      bootId: await bootId() ?? `unknown ${crypto.randomUUID()}`,
      engine: { name: "portable", reason: "the native engine is not part of this version" },
    });
    admin = startAdminServer({ address: config.member.admin, control: target.control, token, log });
    return { target, adminUrl: `http://${formatSocketAddress(config.member.admin)}`, stop };
  } catch (error) {
    await stop();
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

function secretFile(path: string) {
  return {
    path,
    read: () => readTextIfThere(path),
    make: (text: string) => makePrivateFile(path, text),
    remove: () => Deno.remove(path),
  };
}

/** SIGHUP: a configuration that is wrong changes nothing. */
async function reloadFrom(path: string, target: Target, log: Log): Promise<void> {
  try {
    await target.reload(await readMemberConfig(path, (line) => log.warn(line)));
  } catch (error) {
    log.error("the configuration was not reloaded; the old one goes on", {
      reason: (error as Error).message,
    });
  }
}

interface StopSignal {
  readonly received: Promise<Deno.Signal>;
  forget(): void;
}

/** The first SIGTERM or SIGINT. One that comes later than its own echo ends the process at once. */
function stopSignal(): StopSignal {
  const signals: Deno.Signal[] = ["SIGTERM", "SIGINT"];
  const listeners = new Map<Deno.Signal, () => void>();
  let firstMs: number | null = null;
  const received = new Promise<Deno.Signal>((resolve) => {
    for (const signal of signals) {
      const listener = () => {
        const nowMs = systemClock.nowMs();
        if (firstMs !== null && nowMs - firstMs > signalRepeatMs) Deno.exit(1);
        firstMs ??= nowMs;
        resolve(signal);
      };
      listeners.set(signal, listener);
      Deno.addSignalListener(signal, listener);
    }
  });
  const forget = () => listeners.forEach((listener, signal) => Deno.removeSignalListener(signal, listener));
  return { received, forget };
}

/** An error that nobody expected is a bug of ours: the process ends, and systemd starts it again. */
function endOnOwnMistakes(log: Log): void {
  const end = (what: string, error: unknown) => {
    log.error(what, { error: error instanceof Error ? error.stack ?? error.message : String(error) });
    Deno.exit(70); // EX_SOFTWARE
  };
  globalThis.addEventListener("unhandledrejection", (event) => {
    event.preventDefault();
    end("unhandled rejection: a bug of Plimsoll", event.reason);
  });
  globalThis.addEventListener("error", (event) => {
    event.preventDefault();
    end("unhandled error: a bug of Plimsoll", event.error);
  });
}
