// Numbers as CDBs and parameter lists have them.

export function be16(value: number): number[] {
  return [(value >>> 8) & 0xff, value & 0xff];
}

export function be32(value: number): number[] {
  return [...be16(Math.floor(value / 65536) % 65536), ...be16(value % 65536)];
}

export function be64(value: number): number[] {
  return [...be32(Math.floor(value / 2 ** 32)), ...be32(value % 2 ** 32)];
}
