// The owner of the data plane: the whole member on the native I/O engine, in a thread of its own; I/O workers
// (io_worker.ts) may serve connections beside it. The main thread keeps signals
// and the admin server, and calls this one through a channel (target_messages.ts).

/// <reference lib="deno.worker" />

import type { MemberConfig } from "../lib/config/mod.ts";
import { type Handlers, LoopChannel } from "../lib/io/native/channel.ts";
import { DiskEngine } from "../lib/io/native/disk_engine.ts";
import { ExclusiveCalls } from "../lib/io/native/exclusive_calls.ts";
import { NativeLoop } from "../lib/io/native/loop.ts";
import { NativeNetwork } from "../lib/io/native/network.ts";
import { openNativeDisk } from "../lib/io/native/open_disk.ts";
import { ThreadLock } from "../lib/io/native/thread_lock.ts";
import { type MetadataNews, RemoteMetadata } from "../lib/meta/remote_metadata.ts";
import { openDataPlane } from "./data_plane.ts";
import { openFlows } from "./flows.ts";
import { setUpLogging } from "./logging.ts";
import { endOnOwnMistakes } from "./own_mistakes.ts";
import { type MemberEngine, type RunningMember, startMember } from "./target_member.ts";
import { Cell, type MemberMethods, type ProcessMethods, type WorkerSetup } from "./target_messages.ts";

/** How often the main thread's view of readiness is brought up to date, milliseconds. */
const readyMs = 100;

self.onmessage = (event: MessageEvent<WorkerSetup>) => void run(event.data);

async function run(setup: WorkerSetup): Promise<void> {
  const { channel: memory, cells, logLevel, logFormat } = setup;
  const log = await setUpLogging({ level: logLevel, format: logFormat });
  const loop = new NativeLoop({ heartbeat: { cells, index: Cell.heartbeat } });
  const disks = DiskEngine.open(loop, { mappedBytesMax: setup.mappedBytes });
  let opened = 0;
  const network = new NativeNetwork(loop);
  const engine: MemberEngine = {
    clock: loop,
    network,
    openDisk: (path, options) =>
      openNativeDisk(disks, path, options, new ExclusiveCalls(setup.exclusives, opened++)),
    dataPlane: setup.links.length === 0 ? null : openDataPlane(loop, setup),
    dataBufferBytes: setup.bufferBytes,
    poolMemory: disks.memory,
    name: "native",
    reason: `epoll and ${disks.status}`,
  };
  const metadata = new RemoteMetadata((method, args) => channel.call(method, args));
  let member: RunningMember | null = null;
  const showReady = () => {
    Atomics.store(cells, Cell.ready, member?.control.ready() === true ? 1 : 0);
    loop.after(readyMs, showReady);
  };
  const start = async (config: MemberConfig) => {
    const flows = openFlows(loop, config.member, log);
    if (flows !== null) {
      network.moveWith(flows);
      const lock = new ThreadLock(cells, Cell.packetFilter);
      engine.dataPlane?.letLend(() => flows.rules.share(lock));
    }
    const running = await startMember(config, metadata, { ...engine, flows }, log).catch((error) => {
      flows?.close();
      throw error;
    });
    const stop = async (progress: (step: string) => void) => {
      await running.stop(progress);
      flows?.close();
    };
    member = { ...running, stop };
    showReady();
    return member;
  };
  const channel: LoopChannel<MemberMethods, ProcessMethods> = new LoopChannel<MemberMethods, ProcessMethods>(
    loop,
    memory,
    {
      ...metadata.news,
      ...methods(start, () => member!, (step) => channel.tell("progress", step)),
    },
  );
  endOnOwnMistakes(log, (what) => channel.tell("mistake", what));
  await loop.run();
}

/** The main thread calls `start` first, once, and nothing else unless that went well. */
function methods(
  start: (config: MemberConfig) => Promise<unknown>,
  member: () => RunningMember,
  progress: (step: string) => void,
): Handlers<Omit<MemberMethods, keyof MetadataNews>> {
  const nothing = (work: Promise<unknown>) => work.then(() => null);
  return {
    start: (config) => nothing(start(config)),
    status: () => member().control.status(),
    members: () => member().control.members(),
    route: (volume) => member().control.route(volume),
    sessions: () => member().control.sessions(),
    createVolume: (creation) => member().control.createVolume(creation),
    setVolume: ({ name, change }) => member().control.setVolume(name, change),
    resizeVolume: ({ name, sizeBytes }) => member().control.resizeVolume(name, sizeBytes),
    deleteVolume: (name) => nothing(member().control.deleteVolume(name)),
    drainMember: ({ name, purpose }) => nothing(member().control.drainMember(name, purpose)),
    removeMember: (name) => nothing(member().control.removeMember(name)),
    moveSession: ({ id, to, live }) => member().control.moveSession(id, to, live),
    balance: () => member().control.balance(),
    runBalance: () => member().control.runBalance(),
    setBalancePolicy: (policy) => nothing(member().control.setBalancePolicy(policy)),
    reload: (config) => nothing(member().reload(config)),
    stop: () => nothing(member().stop(progress)),
  };
}
