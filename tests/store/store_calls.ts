// Block operations one can wait for, and a store on a fresh disk: what every store test begins with.

import type { Disk } from "../../lib/base/disk.ts";
import type { RandomSource } from "../../lib/base/random.ts";
import { BlockOperation, type BlockService } from "../../lib/extent/operation.ts";
import { formatDisk, openStore, type OpenStoreOptions, type Store } from "../../lib/store/mod.ts";

export const identity = Object.freeze({
  groupId: "0123456789abcdef0123456789abcdef",
  memberId: "00112233445566778899aabbccddeeff",
  diskId: "f0e1d2c3b4a5968778695a4b3c2d1e0f",
});

/** Small pages, so that small disks have many slots. */
export const pageBytes = 16_384;

export const bootId = "11111111-2222-3333-4444-555555555555";

/** Deterministic randomness (xorshift128 with a hashed seed). */
export class SeededRandom implements RandomSource {
  #a: number;
  #b: number;
  #c = 0x9e37_79b9;
  #d = 0x85eb_ca6b;
  constructor(seed: number) {
    this.#a = Math.imul(seed + 1, 0x2545_f491) | 1;
    this.#b = Math.imul(seed ^ 0x5bd1_e995, 0xc2b2_ae35) | 1;
    for (let i = 0; i < 20; i++) this.next();
  }

  /** 32 random bits. */
  next(): number {
    let t = this.#d;
    const s = this.#a;
    this.#d = this.#c;
    this.#c = this.#b;
    this.#b = s;
    t ^= t << 11;
    t ^= t >>> 8;
    this.#a = t ^ s ^ (s >>> 19);
    return this.#a >>> 0;
  }

  /** An integer from 0 to bound - 1. */
  below(bound: number): number {
    return Math.floor(this.next() / 0x1_0000_0000 * bound);
  }

  chance(probability: number): boolean {
    return this.next() / 0x1_0000_0000 < probability;
  }

  pick<T>(list: readonly T[]): T {
    return list[this.below(list.length)]!;
  }

  fill(bytes: Uint8Array): void {
    for (let i = 0; i < bytes.length; i++) bytes[i] = this.next() >>> 24;
  }
}

/** Bytes a disk needs for this many slots, roughly; formatDisk decides how many fit. */
export function diskBytesFor(slots: number): number {
  return 131_072 + 2 * Math.ceil(slots / 120) * 4096 + pageBytes + slots * pageBytes;
}

export async function freshStore(disk: Disk, options: Partial<OpenStoreOptions> = {}): Promise<Store> {
  await formatDisk(disk, { ...identity, pageBytes }, new SeededRandom(1));
  return await openStore(disk, identity, { bootId, ...options });
}

type Fields = Partial<Omit<BlockOperation, "done">>;

/** Submits one operation and resolves with it when it is done. */
export function call(service: BlockService, fields: Fields): Promise<BlockOperation> {
  return new Promise((resolve) => {
    const operation = Object.assign(new BlockOperation(), fields);
    operation.done = resolve;
    service.submit(operation);
  });
}

export function filled(lengthBytes: number, value: number): Uint8Array {
  return new Uint8Array(lengthBytes).fill(value);
}

export function write(
  service: BlockService,
  image: number,
  page: number,
  offsetBytes: number,
  buffer: Uint8Array,
  fields: Fields = {},
): Promise<BlockOperation> {
  return call(service, {
    kind: "write",
    image,
    page,
    offsetBytes,
    lengthBytes: buffer.length,
    buffer,
    ...fields,
  });
}

/** The bytes read; throws when the outcome is not "done". */
export async function read(
  service: BlockService,
  image: number,
  page: number,
  offsetBytes: number,
  lengthBytes: number,
): Promise<Uint8Array> {
  const buffer = filled(lengthBytes, 0xee);
  const operation = await call(service, { kind: "read", image, page, offsetBytes, lengthBytes, buffer });
  if (operation.outcome !== "done") throw new Error(`read ended as ${operation.outcome}`);
  return buffer;
}

export function unmap(
  service: BlockService,
  image: number,
  page: number,
  offsetBytes = 0,
  lengthBytes = pageBytes,
): Promise<BlockOperation> {
  return call(service, { kind: "unmap", image, page, offsetBytes, lengthBytes, mayUnmap: true });
}

export function flush(service: BlockService, image = 1): Promise<BlockOperation> {
  return call(service, { kind: "flush", image });
}
