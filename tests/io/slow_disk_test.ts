// Without this, one slow disk or one cold read could stall the other connections and disks of a loop, in either way in
// which slow calls are made.

import { strict as assert } from "node:assert";
import type { Disk, DiskOperation } from "../../lib/base/disk.ts";
import type { Stream, StreamHandler } from "../../lib/base/network.ts";
import { DiskEngine } from "../../lib/io/native/disk_engine.ts";
import { FairCalls } from "../../lib/io/native/fair_calls.ts";
import { libc } from "../../lib/io/native/libc.ts";
import { NativeNetwork } from "../../lib/io/native/network.ts";
import { openNativeDisk } from "../../lib/io/native/open_disk.ts";
import { type SlowCall, type SlowCalls, SlowKind } from "../../lib/io/native/slow_calls.ts";
import { stopNative } from "./disk_rigs.ts";
import { turnLoop } from "./native_rig.ts";

const KiB = 1024;

/** Calls of one descriptor stay away until they are let go. */
class HeldCalls implements SlowCalls {
  readonly way: SlowCalls["way"];
  readonly held: SlowCall[] = [];
  slowDescriptor = -1;

  constructor(readonly inner: SlowCalls) {
    this.way = inner.way;
  }

  submit(call: SlowCall): void {
    if (call.fd === this.slowDescriptor) this.held.push(call);
    else this.inner.submit(call);
  }

  release(): void {
    for (const call of this.held.splice(0)) this.inner.submit(call);
  }

  close(): Promise<void> {
    return this.inner.close();
  }
}

function read(disk: Disk, offsetBytes: number): Promise<DiskOperation> {
  return new Promise((done) =>
    disk.submit({
      kind: "read",
      offsetBytes,
      lengthBytes: 4096,
      buffer: new Uint8Array(4096),
      bufferStart: 0,
      errno: -1,
      done,
    })
  );
}

for (const slowCalls of ["io_uring", "threads"] as const) {
  Deno.test(`${slowCalls}: while a disk does not answer, connections, cached reads and cold reads of other disks go on`, async () => {
    const directory = await Deno.makeTempDir({ dir: "/var/tmp", prefix: "slow-disk-" });
    const c = libc()!;
    let cold = -1; // of this descriptor the page cache has nothing
    let errno = 0;
    const rig = turnLoop({
      libc: {
        ...c,
        preadv2: (fd, ...rest) => {
          errno = fd === cold ? 11 : 0;
          return fd === cold ? -1 : c.preadv2(fd, ...rest);
        },
        epoll_wait: (...parameters) => {
          errno = 0;
          return c.epoll_wait(...parameters);
        },
        errno: () => errno || c.errno(),
      },
    });
    const inner = DiskEngine.open(rig.loop, { slowCalls, threads: 2 });
    const calls = new HeldCalls(inner.slow);
    const engine = new DiskEngine(rig.loop, calls, "held");
    const open = (name: string) =>
      openNativeDisk(engine, `${directory}/${name}`, { createBytes: 1024 * KiB });
    const [slow, warm, other] = [open("slow"), open("warm"), open("other")];
    const fdOf = (disk: Disk) => (disk as unknown as { fd: number }).fd;

    const network = new NativeNetwork(rig.loop);
    const echoed = Promise.withResolvers<void>();
    const listener = await network.listen(
      { hostname: "127.0.0.1", port: 0 },
      (stream: Stream): StreamHandler => ({
        received: (bytes, _view, start, end) => stream.send(bytes.slice(start, end), 0, end - start, null),
        drained: () => {},
        closed: () => {},
      }),
    );
    let echoes = 0;
    const client = await network.connect(listener.address, 1000, (stream): StreamHandler => ({
      received: () => {
        if (++echoes < 100) stream.send(new Uint8Array(1), 0, 1, null);
        else echoed.resolve();
      },
      drained: () => {},
      closed: () => {},
    }));

    calls.slowDescriptor = cold = fdOf(slow);
    let slowDone = 0;
    const waiting = Array.from(
      { length: 200 },
      (_, i) => read(slow, i * 4096 % (512 * KiB)).then(() => slowDone++),
    );
    assert.equal(calls.held.length, 200, "cold reads were made by the loop's own thread");
    for (let i = 0; i < 50; i++) assert.equal((await read(warm, i * 4096)).errno, 0);
    client.send(new Uint8Array(1), 0, 1, null);
    await echoed.promise;
    cold = fdOf(other);
    await Promise.all(Array.from({ length: 50 }, (_, i) => read(other, i * 4096)));
    assert.equal(slowDone, 0, "the disk that does not answer has answered");
    calls.slowDescriptor = -1;
    calls.release();
    await Promise.all(waiting);
    assert.equal(slowDone, 200);

    client.end();
    await listener.close();
    for (const disk of [slow, warm, other]) await disk.close();
    await stopNative(rig, engine);
    await Deno.remove(directory, { recursive: true });
  });
}

Deno.test("a descriptor has its share of the threads under way, the others their own, and all are served in order", () => {
  const started: SlowCall[] = [];
  const inner: SlowCalls = {
    way: "threads",
    submit: (call) => started.push(call),
    close: () => Promise.resolve(),
  };
  const fair = new FairCalls(inner, 3);
  const done: string[] = [];
  const call = (fd: number, n: number): SlowCall => ({
    kind: SlowKind.read,
    fd,
    offsetBytes: n,
    address: 1,
    lengthBytes: 2,
    completed: (result) => done.push(`${fd}:${n}=${result}`),
  });
  for (let n = 0; n < 10; n++) fair.submit(call(7, n)); // hangs
  for (let n = 0; n < 5; n++) fair.submit(call(8, n));
  assert.deepEqual(started.map(({ fd, offsetBytes }) => `${fd}:${offsetBytes}`), [
    "7:0",
    "7:1",
    "7:2",
    "8:0",
    "8:1",
    "8:2",
  ]);
  for (let i = 3; i < started.length; i++) started[i]!.completed(i);
  assert.deepEqual(done, ["8:0=3", "8:1=4", "8:2=5", "8:3=6", "8:4=7"]);
  for (let i = 0; i < started.length; i++) if (started[i]!.fd === 7) started[i]!.completed(-5);
  assert.deepEqual(done.slice(5), Array.from({ length: 10 }, (_, n) => `7:${n}=-5`));
});
