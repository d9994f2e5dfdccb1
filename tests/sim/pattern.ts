// Sectors, the unit in which a disk tears, that say which write put them there.

export const sectorBytes = 512;
const words = sectorBytes / 4;

/** Fills one block: the write's token, the block's address (or the first address of a write that repeats), and a sequence of both. */
export function fillBlock(bytes: Uint8Array, at: number, token: number, key: number): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset + at, sectorBytes);
  view.setUint32(0, token);
  view.setUint32(4, key);
  const step = Math.imul(token, 0x9e3779b1) ^ Math.imul(key, 0x85ebca77) | 1;
  for (let i = 2, x = step; i < words; i++) view.setInt32(4 * i, x = x + step | 0);
}

/** The token and the key of a whole block; null when it is no block that fillBlock() made. Zeroes have token 0. */
export function readBlock(bytes: Uint8Array, at: number): { token: number; key: number } | null {
  const view = new DataView(bytes.buffer, bytes.byteOffset + at, sectorBytes);
  const token = view.getUint32(0);
  const key = view.getUint32(4);
  if (token === 0 && key === 0) {
    for (let i = 2; i < words; i++) if (view.getInt32(4 * i) !== 0) return null;
    return { token, key };
  }
  const step = Math.imul(token, 0x9e3779b1) ^ Math.imul(key, 0x85ebca77) | 1;
  for (let i = 2, x = step; i < words; i++) if (view.getInt32(4 * i) !== (x = x + step | 0)) return null;
  return { token, key };
}
