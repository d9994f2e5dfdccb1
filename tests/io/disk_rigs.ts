// Every engine's disks for the contract suite, over files and block devices, on a machine that behaves, on one whose calls
// are short or interrupted, and on one whose device fails when it is told to.

import * as fs from "node:fs";
import type { Disk } from "../../lib/base/disk.ts";
import { type FileCalls, FileDisk, openFileDisk } from "../../lib/io/file_disk.ts";
import { DirectDisk } from "../../lib/io/native/direct_disk.ts";
import { DiskEngine } from "../../lib/io/native/disk_engine.ts";
import { type Libc, libc } from "../../lib/io/native/libc.ts";
import { openNativeDisk } from "../../lib/io/native/open_disk.ts";
import type { SlowCall, SlowCalls } from "../../lib/io/native/slow_calls.ts";
import { type LoopRig, turnLoop } from "./native_rig.ts";

export interface Rig {
  readonly disk: Disk;
  stop(): Promise<void>;
}

/** Opens `path`, or makes it with `createBytes` first. */
export type Open = (path: string, createBytes?: number) => Rig;

/** What the device answers from now on; 0: it works. */
export interface Device {
  /** To calls that the engine makes at once (native, through the page cache). */
  inlineErrno: number;
  /** To all others. */
  errno: number;
}

interface NativeOptions {
  readonly slowCalls: "io_uring" | "threads";
  readonly direct?: boolean;
  readonly shaky?: boolean;
  readonly device?: Device;
  /** O_DIRECT in whole units of 4096 bytes, as a 4Kn drive wants them. */
  readonly unit4096?: boolean;
}

export function native(o: NativeOptions): Open {
  const direct = o.direct === true;
  return (path, createBytes) => {
    const rig = turnLoop(
      o.shaky === true ? { libc: shakyLibc() } : o.device ? { libc: failingLibc(o.device) } : {},
    );
    let engine = DiskEngine.open(rig.loop, { slowCalls: o.slowCalls, threads: 2 });
    const { slow } = engine;
    if (o.shaky === true) engine = new DiskEngine(rig.loop, shakySlowCalls(slow), "shaky");
    if (o.device) engine = new DiskEngine(rig.loop, failingSlowCalls(slow, o.device), "failing");
    let disk = openNativeDisk(engine, path, {
      direct,
      ...(createBytes === undefined ? {} : { createBytes }),
    });
    if (o.unit4096 === true) {
      const { name, fd, sizeBytes } = disk as DirectDisk;
      disk = new DirectDisk(engine, name, fd, sizeBytes, { offsetBytes: 4096, memoryBytes: 512 });
    }
    return { disk, stop: () => stopNative(rig, engine) };
  };
}

export async function stopNative(rig: LoopRig, engine: DiskEngine): Promise<void> {
  await engine.close();
  await rig.stop();
}

export function portable(calls: FileCalls = fs): Open {
  return (path, createBytes) => {
    const opened = openFileDisk(path, createBytes === undefined ? {} : { createBytes });
    return {
      disk: new FileDisk(opened.name, opened.fd, opened.sizeBytes, calls, opened.claim),
      stop: () => Promise.resolve(),
    };
  };
}

/** Short transfers, EAGAIN, EINTR. Nothing of it may show. */
export function shakyFileCalls(): FileCalls {
  let turn = 0;
  const shake =
    (transfer: FileCalls["read"]): FileCalls["read"] => (fd, buffer, start, length, position, done) => {
      switch (++turn % 4) {
        case 0:
          return queueMicrotask(() => done(errorOf(turn % 8 === 0 ? 11 : 4), 0));
        case 1:
          length = Math.min(length, 1000);
      }
      transfer(fd, buffer, start, length, position, done);
    };
  return { read: shake(fs.read), write: shake(fs.write), fdatasync: fs.fdatasync };
}

export function failingFileCalls(device: Device): FileCalls {
  const fail =
    (transfer: FileCalls["read"]): FileCalls["read"] => (fd, buffer, start, length, position, done) => {
      if (device.errno !== 0) return queueMicrotask(() => done(errorOf(device.errno), 0));
      transfer(fd, buffer, start, length, position, done);
    };
  return {
    read: fail(fs.read),
    write: fail(fs.write),
    fdatasync: (fd, done) => {
      if (device.errno !== 0) return queueMicrotask(() => done(errorOf(device.errno)));
      fs.fdatasync(fd, done);
    },
  };
}

const codes: Readonly<Record<number, string>> = {
  4: "EINTR",
  5: "EIO",
  11: "EAGAIN",
  28: "ENOSPC",
  30: "EROFS",
};

function errorOf(errno: number): NodeJS.ErrnoException {
  return Object.assign(new Error("on purpose"), { code: codes[errno]! });
}

/** A call as the inner calls see it, shorter than the caller's. */
function shorter(call: SlowCall, lengthBytes: number): SlowCall {
  const { kind, fd, offsetBytes, address } = call;
  return { kind, fd, offsetBytes, address, lengthBytes, completed: (result) => call.completed(result) };
}

function shakySlowCalls(inner: SlowCalls): SlowCalls {
  let turn = 0;
  const submit = (call: SlowCall) => {
    switch (++turn % 4) {
      case 0:
        return queueMicrotask(() => call.completed(turn % 8 === 0 ? -11 : -4));
      case 1:
        // What O_DIRECT takes is a multiple of its unit.
        if (call.lengthBytes > 4096 && call.kind <= 1) return inner.submit(shorter(call, 4096));
    }
    inner.submit(call);
  };
  return { way: inner.way, submit, close: () => inner.close() };
}

function failingSlowCalls(inner: SlowCalls, device: Device): SlowCalls {
  const submit = (call: SlowCall) => {
    const { errno } = device;
    if (errno === 0) return inner.submit(call);
    queueMicrotask(() => call.completed(-errno));
  };
  return { way: inner.way, submit, close: () => inner.close() };
}

type Vectored = Libc["preadv2"];

/** A C library whose page cache calls go through `wrap`; `errno` is theirs until the next wait. */
function libcWith(wrap: (call: Vectored, fail: (errno: number) => -1) => Vectored): Libc {
  const c = libc()!;
  let errno = 0;
  const fail = (failed: number): -1 => {
    errno = failed;
    return -1;
  };
  const through = (call: Vectored): Vectored => (...parameters) => {
    errno = 0;
    return call(...parameters);
  };
  return {
    ...c,
    preadv2: through(wrap(c.preadv2, fail)),
    pwritev2: through(wrap(c.pwritev2, fail)),
    epoll_wait(...parameters: Parameters<Libc["epoll_wait"]>) {
      errno = 0; // its own counts from now on
      return c.epoll_wait(...parameters);
    },
    errno: () => errno || c.errno(),
  };
}

function shakyLibc(): Libc {
  let turn = 0;
  return libcWith((call, fail) => (fd, vector, count, offset, flags) => {
    switch (++turn % 5) {
      case 0:
        return fail(11);
      case 1:
        return fail(4);
      case 2: {
        const words = new Uint32Array(Deno.UnsafePointerView.getArrayBuffer(vector!, 16));
        if (words[2]! > 1000) words[2] = 1000;
      }
    }
    return call(fd, vector, count, offset, flags);
  });
}

function failingLibc(device: Device): Libc {
  return libcWith((call, fail) => (...parameters) =>
    device.inlineErrno === 0 ? call(...parameters) : fail(device.inlineErrno)
  );
}

/** A block device over a file of `bytes`; null where none can be made. */
export async function loopDevice(file: string, bytes: number): Promise<string | null> {
  await Deno.writeFile(file, new Uint8Array(0));
  await Deno.truncate(file, bytes);
  const made = await losetup("--find", "--show", file);
  return made?.trim() ?? null;
}

export async function dropLoopDevice(device: string): Promise<void> {
  if (await losetup("--detach", device) === null) throw new Error(`Cannot detach ${device}.`);
}

async function losetup(...args: string[]): Promise<string | null> {
  try {
    const done = await new Deno.Command("/usr/sbin/losetup", { args, stdin: "null" }).output();
    return done.success ? new TextDecoder().decode(done.stdout) : null;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return null;
    throw error;
  }
}
