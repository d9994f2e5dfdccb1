// An I/O worker: a thread that serves connections beside the owner of the data plane (docs/engine.md, "Workers").

/// <reference lib="deno.worker" />

import { BufferPool } from "../lib/base/buffer_pool.ts";
import { systemBootClock } from "../lib/io/boot_clock.ts";
import { Arena } from "../lib/io/native/arena.ts";
import { DiskEngine } from "../lib/io/native/disk_engine.ts";
import { ExclusiveCalls } from "../lib/io/native/exclusive_calls.ts";
import { FlowLender } from "../lib/io/native/flow_lender.ts";
import { rulesOfThread } from "../lib/io/native/flow_rules.ts";
import { NativeLoop } from "../lib/io/native/loop.ts";
import { NativeNetwork } from "../lib/io/native/network.ts";
import { adoptDisk, directAlignment } from "../lib/io/native/open_disk.ts";
import { PeerLink } from "../lib/io/native/peer_link.ts";
import { ThreadLock } from "../lib/io/native/thread_lock.ts";
import { viewMemory } from "../lib/io/native/shared_memory.ts";
import { systemRandom } from "../lib/io/system_random.ts";
import { IoWorker } from "../lib/roles/target/io_worker.ts";
import { ownBuffersBytes } from "../lib/session/session_buffers.ts";
import { setUpLogging } from "./logging.ts";
import { endOnOwnMistakes } from "./own_mistakes.ts";
import { Cell, type IoWorkerMistake, type IoWorkerSetup } from "./target_messages.ts";

self.onmessage = (event: MessageEvent<IoWorkerSetup>) => void run(event.data);

async function run(setup: IoWorkerSetup): Promise<void> {
  const log = await setUpLogging({ level: setup.logLevel, format: setup.logFormat });
  endOnOwnMistakes(log, (what) => self.postMessage({ mistake: what } satisfies IoWorkerMistake));
  const loop = new NativeLoop({ heartbeat: { cells: setup.cells, index: Cell.workers + setup.index } });
  const disks = DiskEngine.open(loop, { mappedBytesMax: setup.mappedBytes });
  const network = new NativeNetwork(loop);
  const ownBytes = ownBuffersBytes(setup.bufferBytes);
  const arena = new Arena(loop.libc, setup.bufferBytes + ownBytes);
  const link: PeerLink = new PeerLink(loop, setup.link, 1, (message) => worker.receive(message));
  const worker = new IoWorker({
    index: setup.index,
    clock: loop,
    bootClock: systemBootClock(),
    random: systemRandom,
    log,
    cells: setup.shared,
    owner: link,
    arena: arena.place,
    pool: new BufferPool(setup.bufferBytes, ownBytes, arena),
    adopt: (stream, handler) => network.adopt(stream, handler),
    openDisk: ({ name, descriptor, sizeBytes, direct, exclusives, slotsAtBytes }) => ({
      // Never closed here: it is the owner's.
      disk: adoptDisk(
        disks,
        { name, fd: descriptor, sizeBytes, direct },
        new ExclusiveCalls(setup.exclusives, exclusives),
      ),
      slotsAtBytes,
      writeUnitBytes: direct ? directAlignment(loop.libc, descriptor).offsetBytes : 1,
    }),
    openLender: (rules) => {
      try {
        const lock = new ThreadLock(setup.cells, Cell.packetFilter);
        network.lendWith(new FlowLender(loop, rulesOfThread(rules, lock, setup.index + 1)));
      } catch (error) {
        log.info("answers of other members to a thread's sessions are forwarded; no short cuts", {
          missing: (error as Error).message,
        });
      }
    },
    viewMemory,
  });
  await loop.run();
}
