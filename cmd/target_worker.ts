// The data-plane worker: the whole member on the native I/O engine, in a thread of its own. The main thread keeps signals
// and the admin server, and talks to this one by messages (target_messages.ts).

/// <reference lib="deno.worker" />

import { DiskEngine } from "../lib/io/native/disk_engine.ts";
import { NativeLoop } from "../lib/io/native/loop.ts";
import { NativeNetwork } from "../lib/io/native/network.ts";
import { openNativeDisk } from "../lib/io/native/open_disk.ts";
import { setUpLogging } from "./logging.ts";
import { endOnOwnMistakes } from "./own_mistakes.ts";
import { type RunningMember, startMember } from "./target_member.ts";
import {
  type CallMessage,
  Cell,
  failureOf,
  type FromWorker,
  type StartMessage,
  type ToWorker,
} from "./target_messages.ts";

/** How often the main thread's view of readiness is brought up to date, milliseconds. */
const readyMs = 100;

let member: RunningMember | null = null;
let loop: NativeLoop | null = null;

self.onmessage = (event: MessageEvent<ToWorker>) => {
  const message = event.data;
  if (message.kind === "start") void start(message);
  else void answer(message);
};

function tell(message: FromWorker): void {
  self.postMessage(message);
}

async function start({ config, logLevel, logFormat, cells }: StartMessage): Promise<void> {
  const log = await setUpLogging({ level: logLevel, format: logFormat });
  endOnOwnMistakes(log, (what) => tell({ kind: "mistake", what }));
  const shared = new Int32Array(cells);
  loop = new NativeLoop({ heartbeat: { cells: shared, index: Cell.heartbeat } });
  const disks = new DiskEngine(loop);
  const running = loop.run();
  try {
    member = await startMember(config, {
      clock: loop,
      network: new NativeNetwork(loop),
      openDisk: (path, createBytes) =>
        openNativeDisk(disks, path, createBytes === undefined ? {} : { createBytes }),
      name: "native",
      reason: disks.description,
    }, log);
  } catch (error) {
    tell({ kind: "failure", id: 0, failure: failureOf(error) });
    return;
  }
  showReady(shared);
  tell({ kind: "started" });
  await running;
}

function showReady(cells: Int32Array<SharedArrayBuffer>): void {
  Atomics.store(cells, Cell.ready, member?.control.ready() === true ? 1 : 0);
  loop!.after(readyMs, () => showReady(cells));
}

async function answer({ id, method, args }: CallMessage): Promise<void> {
  try {
    tell({ kind: "answer", id, value: await call(method, args) });
  } catch (error) {
    tell({ kind: "failure", id, failure: failureOf(error) });
  }
}

/** The main thread's RemoteMember sends what the types of MemberControl say. */
function call(method: CallMessage["method"], args: readonly unknown[]): Promise<unknown> {
  const running = member!;
  if (method === "stop") return running.stop((step) => tell({ kind: "progress", step }));
  if (method === "reload") return running.reload(args[0] as Parameters<RunningMember["reload"]>[0]);
  const control = running.control as unknown as Record<
    string,
    (...args: readonly unknown[]) => Promise<unknown>
  >;
  return control[method]!(...args);
}
