// Without this, a thread of the data plane that dies could leave the system writing to the disk what was freed with it: whatever
// a member's disks read and write for initiators must lie in memory that outlives the thread.

import { strict as assert } from "node:assert";
import type { BufferMemory } from "../../lib/base/buffer_pool.ts";
import type { Disk } from "../../lib/base/disk.ts";
import { limits } from "../../lib/base/limits.ts";
import { naaIdentifier } from "../../lib/wire/scsi/inquiry.ts";
import { copyCdb, copyList, copySegment, copyTarget } from "../device/copy_lists.ts";
import { be32, be64 } from "../device/big_endian.ts";
import { Group } from "./group.ts";
import { pattern, verdict } from "./scsi.ts";
import { MiB, until, World } from "./world.ts";

/** Memory that knows its own. */
class Recording implements BufferMemory {
  readonly out = new Set<ArrayBufferLike>();

  allocate(sizeBytes: number): Uint8Array<ArrayBuffer> {
    const bytes = new Uint8Array(sizeBytes);
    this.out.add(bytes.buffer);
    return bytes;
  }

  release(bytes: Uint8Array<ArrayBuffer>): void {
    assert.ok(this.out.delete(bytes.buffer), "memory was released that nobody had");
  }
}

class LastingWorld extends World {
  readonly foreign: string[] = [];
  operations = 0;

  constructor(readonly memory: Recording) {
    super({ poolMemory: memory });
  }

  override openDisk(path: string, createBytes?: number): Disk {
    const disk: Disk = super.openDisk(path, createBytes);
    disk.lastingMemory = (sizeBytes) => this.memory.allocate(sizeBytes);
    this.open.get(path)!.fault = ({ kind, buffer, offsetBytes, lengthBytes }) => {
      this.operations++;
      const moves = kind === "read" || kind === "write";
      if (moves && !this.memory.out.has(buffer.buffer)) {
        this.foreign.push(`${kind} ${offsetBytes}+${lengthBytes}`);
      }
      return 0;
    };
    return disk;
  }
}

Deno.test("disks read and write memory that outlives its thread, whatever the command, and a deleted volume gives its own back", async () => {
  const memory = new Recording();
  await using world = new LastingWorld(memory);
  await world.start();
  const lun = await world.login();
  const naa = [...naaIdentifier(world.target.volumes.find("vol0")!.server.settings.identifier)];
  const command = async (cdb: readonly number[], dataOut?: Uint8Array) =>
    verdict(await lun.client.command(cdb, dataOut === undefined ? {} : { dataOut }));
  const at = (
    opcode: number,
    flags: number,
    lba: number,
    blocks: number,
  ) => [opcode, flags, ...be64(lba), ...be32(blocks), 0, 0];
  const page = MiB / 512;
  const block = pattern(1, 3);
  world.foreign.length = 0; // a start reads what the disk says of itself
  world.operations = 0;

  const source = pattern(2 * page, 1);
  assert.equal(await lun.write(8, source), "good");
  assert.equal(await lun.write(0, block, true), "good");
  assert.deepEqual(await lun.read(8, 2 * page), source);
  assert.equal(await lun.unmap(5 * page + 1, 3), "good");
  assert.equal(await command(at(0x93, 0, 3 * page, 100), block), "good", "WRITE SAME");
  assert.equal(await command(at(0x93, 1, 3 * page, 100)), "good", "WRITE SAME, no data-out");
  assert.equal(await command(at(0x8b, 0, 3 * page, 1), block), "good", "ORWRITE");
  const compare = new Uint8Array([...block, ...pattern(1, 4)]);
  const cas = [0x89, 0, ...be64(3 * page), 0, 0, 0, 1, 0, 0];
  assert.equal(await command(cas, compare), "good", "COMPARE AND WRITE");
  assert.equal(await command(at(0x8f, 0, 8, 2 * page)), "good", "VERIFY");
  assert.equal(await command(at(0x8f, 2, 8, 2 * page), source), "good", "VERIFY, byte by byte");
  assert.equal(await command(at(0x8e, 2, 4 * page, 2 * page), source), "good", "WRITE AND VERIFY");
  const list = copyList([copyTarget(naa)], [copySegment(8, 6 * page + 5, 2 * page)]);
  assert.equal(await command(copyCdb(list.length), list), "good", "EXTENDED COPY");
  assert.deepEqual(await lun.read(6 * page + 5, 2 * page), source);
  assert.equal(await lun.sync(), "good");
  assert.ok(world.operations > 20, `${world.operations} operations`);
  assert.deepEqual(world.foreign, []);

  const stepBuffers = () =>
    [...memory.out].filter(({ byteLength }) => byteLength === limits.stepBufferBytes).length;
  const had = stepBuffers();
  await world.target.control.deleteVolume("vol0");
  await until(() => stepBuffers() === had - 1, "the volume has given its memory back");
});

Deno.test("what a page is copied from and to, on its way to another member, is such memory too", async () => {
  const memory = new Recording();
  await using group = await Group.start(undefined, { poolMemory: memory });
  await group.volume("vol0", 3);
  const [alpha, beta] = group.worlds;
  const luns = await group.login("vol0");
  for (let page = 0; page < 3; page++) {
    assert.equal(await luns[0]!.write(page * MiB / 512, pattern(64, page)), "good");
  }
  const foreign: string[] = [];
  let moved = 0;
  for (const { open } of [alpha!, beta!]) {
    for (const disk of open.values()) {
      disk.fault = ({ kind, buffer, lengthBytes }) => {
        const ofPages = (kind === "read" || kind === "write") && lengthBytes >= 4096 * 16;
        if (ofPages) moved++;
        if (ofPages && !memory.out.has(buffer.buffer)) foreign.push(`${kind} ${lengthBytes}`);
        return 0;
      };
    }
  }
  const { image } = alpha!.target.volumes.find("vol0")!.record;
  const table = alpha!.target.router.table(image)!;
  const [from, to] = [alpha!, beta!].map(({ target }) => target.disks[0]!.record.placement);
  const pages = [0, 1, 2].filter((page) => table.homeOf(page) === from);
  const batch = { volume: "vol0", image, pages, from: from!, to: to! };
  assert.deepEqual(await alpha!.target.mover.move(batch), { kind: "moved" });
  assert.ok(moved >= 2, `${moved} operations of pages`);
  assert.deepEqual(foreign, []);
});
