// The owner's end of the I/O workers, on the native engine.

import type { Disk } from "../lib/base/disk.ts";
import { assert } from "../lib/base/assert.ts";
import { ArenaView } from "../lib/io/native/arena.ts";
import { DirectDisk } from "../lib/io/native/direct_disk.ts";
import { NativeDisk } from "../lib/io/native/disk.ts";
import type { NativeLoop } from "../lib/io/native/loop.ts";
import { PeerLink } from "../lib/io/native/peer_link.ts";
import { forgetMemory, mapMemory } from "../lib/io/native/shared_memory.ts";
import { DataPlane, type WorkerPort } from "../lib/roles/target/data_plane.ts";
import type { WorkerSetup } from "./target_messages.ts";

export function openDataPlane(loop: NativeLoop, { links, shared }: WorkerSetup): DataPlane {
  const ports = links.map((memory): WorkerPort => {
    const port: WorkerPort = {
      send: (message) => link.send(message),
      receive: () => assert(false, "a worker spoke before its owner listened"),
    };
    const link = new PeerLink(loop, memory, 0, (message) => port.receive(message));
    return port;
  });
  return new DataPlane({
    cells: shared,
    ports,
    viewArena: (arena) => {
      loop.expectPromises(); // somebody waits for the worker
      return new ArenaView(arena);
    },
    mapMemory: (sizeBytes) => mapMemory(loop.libc, sizeBytes),
    forgetMemory: (address, sizeBytes) => forgetMemory(loop.libc, address, sizeBytes),
    descriptorOf,
  });
}

function descriptorOf(disk: Disk): { descriptor: number; direct: boolean; exclusives: number } {
  assert(disk instanceof NativeDisk || disk instanceof DirectDisk, "a disk of another engine");
  if (disk instanceof DirectDisk) return { descriptor: disk.fd, direct: true, exclusives: 0 };
  return { descriptor: disk.fd, direct: false, exclusives: disk.exclusives.index };
}
