// One thread of disk_threads.ts: takes a call from shared memory, makes it, tells. It sleeps on a futex and ends by a flag:
// a worker that is inside the C library cannot be terminated.

import { Control, type DiskThreadMemory, jobLongs, jobsMax, jobWords } from "./disk_threads.ts";
import { type Libc, libc, Words } from "./libc.ts";
import { SlowKind } from "./slow_calls.ts";

const punchHoleKeepSize = 3;

interface WorkerScope {
  onmessage: ((event: MessageEvent<DiskThreadMemory>) => void) | null;
  close(): void;
}

const scope = self as unknown as WorkerScope;

scope.onmessage = (event) => {
  serve(event.data, libc()!);
  scope.close();
};

function serve(memory: DiskThreadMemory, c: Libc): void {
  const { control, handedOver, finished, words } = memory;
  const one = new Words(2);
  one.words[0] = 1;
  for (;;) {
    const claimed = Atomics.load(control, Control.claimed);
    const tail = Atomics.load(control, Control.tail);
    if (Atomics.load(control, Control.stop) === 1) break; // the loop stops us only when nothing is under way
    if (claimed === tail) {
      Atomics.wait(control, Control.tail, tail);
      continue;
    }
    // The number stays in the ring until its job is finished: nobody writes there before we have read it.
    if (Atomics.compareExchange(control, Control.claimed, claimed, (claimed + 1) | 0) !== claimed) continue;
    const job = Atomics.load(handedOver, claimed & (jobsMax - 1));
    words[job * jobWords + 2] = make(memory, c, job);
    const at = Atomics.add(control, Control.done, 1) & (jobsMax - 1);
    Atomics.store(finished, at, job + 1);
    c.write(memory.eventDescriptor, one.pointer, 8n);
  }
  Atomics.sub(control, Control.living, 1);
  Atomics.notify(control, Control.living);
}

/** The count of bytes moved, or the negative errno. */
function make(memory: DiskThreadMemory, c: Libc, job: number): number {
  const { words, longs } = memory;
  const fd = words[job * jobWords + 1]!;
  const offset = longs[job * jobLongs]!;
  const address = longs[job * jobLongs + 1]!;
  const length = longs[job * jobLongs + 2]!;
  let result = -1;
  switch (words[job * jobWords]) {
    case SlowKind.read:
      result = c.pread64(fd, address, length, offset);
      break;
    case SlowKind.write:
      result = c.pwrite64(fd, address, length, offset);
      break;
    case SlowKind.flush:
      result = c.fdatasync(fd);
      break;
    case SlowKind.punch:
      result = c.fallocate(fd, punchHoleKeepSize, offset, length);
  }
  return result < 0 ? -c.errno() : result;
}
