// The main thread's end of the data plane: a RunningMember whose work is done over there. A worker that dies or
// falls silent ends the process: its descriptors and ring buffers outlive it, so nothing but a restart is clean.

import type { Log } from "../lib/base/log.ts";
import type { MemberConfig } from "../lib/config/mod.ts";
import { createSharedCells } from "../lib/device/shared_cells.ts";
import { limits } from "../lib/base/limits.ts";
import { createChannelMemory, MainChannel } from "../lib/io/native/channel.ts";
import { createPeerLinkMemory } from "../lib/io/native/peer_link.ts";
import { systemClock } from "../lib/io/system_clock.ts";
import type { Metadata } from "../lib/meta/metadata.ts";
import { serveMetadata } from "../lib/meta/remote_metadata.ts";
import { ControlError, type MemberControl } from "../lib/mgmt/control.ts";
import { silenceMsMax, startSilenceMsMax, watchHeartbeat } from "./heartbeat.ts";
import type { LogFormat, LogLevel } from "./logging.ts";
import type { RunningMember } from "./target_member.ts";
import {
  Cell,
  type IoWorkerMistake,
  type IoWorkerSetup,
  type MemberMethods,
  type ProcessMethods,
  type WorkerSetup,
} from "./target_messages.ts";
import { CommandError } from "./terminal.ts";

/** Starts the member in the worker; rejects with what startMember rejects with over there. */
export async function startRemoteMember(
  config: MemberConfig,
  metadata: Metadata,
  log: Log,
  logging: { readonly level: LogLevel; readonly format: LogFormat },
): Promise<RunningMember> {
  const threads = threadsOf(config);
  const cells = new Int32Array(new SharedArrayBuffer(4 * (Cell.workers + threads - 1)));
  const end = (what: string, reason: string) => {
    log.error(what, { reason });
    Deno.exit(70); // EX_SOFTWARE: systemd starts the member again
  };
  const memory = createChannelMemory();
  let progress: (step: string) => void = () => {};
  const channel: MainChannel<ProcessMethods, MemberMethods> = new MainChannel<ProcessMethods, MemberMethods>(
    memory,
    {
      ...serveMetadata(metadata, (what, args) => channel.tell(what, args)),
      progress: (step) => (progress(step), null),
      mistake: (what) => end("the data-plane worker has failed", what),
    },
  );
  const links = Array.from({ length: threads - 1 }, createPeerLinkMemory);
  const common = {
    cells,
    shared: createSharedCells(links.length),
    exclusives: new Int32Array(new SharedArrayBuffer(4 * limits.disksMax)),
    bufferBytes: Math.floor(limits.dataBufferBytesMax / threads),
    mappedBytes: Math.floor(limits.mappedDiskBytesMax / threads),
    logLevel: logging.level,
    logFormat: logging.format,
  };
  startOwner({ ...common, channel: memory, links }, end);
  links.forEach((link, index) => startIoWorker({ ...common, index, link }, end));
  const call = <K extends keyof MemberMethods & string>(method: K, args: MemberMethods[K]["args"]) =>
    channel.call(method, args).catch((error) => {
      throw localError(error);
    });

  let started = false;
  const watch = (what: string, cell: number) => {
    const silent = (milliseconds: number) =>
      end(`${what} does not turn any more`, `silent for ${milliseconds} ms`);
    watchHeartbeat(cells, systemClock, silent, cell, () => started ? silenceMsMax : startSilenceMsMax);
  };
  watch("the data-plane worker", Cell.heartbeat);
  links.forEach((_link, index) => watch(`I/O worker ${index + 1}`, Cell.workers + index));
  await call("start", config);
  started = true;
  return {
    control: remoteControl(cells, call),
    async reload(changed) {
      await call("reload", changed);
    },
    async stop(tell) {
      progress = tell;
      await call("stop", null);
    },
  };
}

type Call = <K extends keyof MemberMethods & string>(
  method: K,
  args: MemberMethods[K]["args"],
) => Promise<MemberMethods[K]["result"]>;

function remoteControl(cells: Int32Array<SharedArrayBuffer>, call: Call): MemberControl {
  return {
    ready: () => Atomics.load(cells, Cell.ready) === 1,
    status: () => call("status", null),
    members: () => call("members", null),
    route: (volume) => call("route", volume),
    sessions: () => call("sessions", null),
    createVolume: (creation) => call("createVolume", creation),
    setVolume: (name, change) => call("setVolume", { name, change }),
    resizeVolume: (name, sizeBytes) => call("resizeVolume", { name, sizeBytes }),
    moveSession: (id, to, live) => call("moveSession", { id, to, live }),
    balance: () => call("balance", null),
    runBalance: () => call("runBalance", null),
    async setBalancePolicy(policy) {
      await call("setBalancePolicy", policy);
    },
    async deleteVolume(name) {
      await call("deleteVolume", name);
    },
    async drainMember(name, purpose) {
      await call("drainMember", { name, purpose });
    },
    async removeMember(name) {
      await call("removeMember", name);
    },
  };
}

/** Threads of the data plane: the owner of the disks, and the I/O workers beside it. */
function threadsOf(config: MemberConfig): number {
  const { workers } = config.member;
  if (workers !== "auto") return workers;
  const cores = navigator.hardwareConcurrency;
  return cores <= 2 ? 1 : Math.min(limits.workersMax, cores); // two share their cores with the kernel's work for them
}

function startIoWorker(setup: IoWorkerSetup, end: (what: string, reason: string) => void): void {
  const worker = new Worker(new URL("./io_worker.ts", import.meta.url), {
    type: "module",
    name: `I/O worker ${setup.index + 1}`,
  });
  const failed = (reason: string) => end(`I/O worker ${setup.index + 1} has failed`, reason);
  worker.onerror = (event) => {
    event.preventDefault();
    failed(event.message);
  };
  worker.onmessage = (event: MessageEvent<IoWorkerMistake>) => failed(event.data.mistake);
  worker.postMessage(setup);
}

function startOwner(setup: WorkerSetup, end: (what: string, reason: string) => void): void {
  const worker = new Worker(new URL("./target_worker.ts", import.meta.url), {
    type: "module",
    name: "data plane",
  });
  worker.onerror = (event) => {
    event.preventDefault();
    end("the data-plane worker has failed", event.message);
  };
  worker.postMessage(setup);
}

/** An error of the worker as the class it had there. */
function localError(error: Error & { kind?: unknown; exitCode?: unknown }): Error {
  if (error.name === "ControlError") {
    return new ControlError(error.kind as ControlError["kind"], error.message);
  }
  if (error.name === "CommandError") return new CommandError(error.message, error.exitCode === 2 ? 2 : 1);
  return error;
}
