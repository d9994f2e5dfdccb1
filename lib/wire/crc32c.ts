// CRC32C (Castagnoli), the header and data digest of iSCSI (RFC 7143 §13.1, examples in RFC 3720 §B.4).
// Slice-by-16: sixteen tables of 256 words, so that sixteen bytes cost sixteen independent look-ups.

const polynomialReflected = 0x82f6_3b78;
const slices = 16;

const t: Int32Array = makeTables();
const t0 = t.subarray(0, 256);
const t1 = t.subarray(256, 512);
const t2 = t.subarray(512, 768);
const t3 = t.subarray(768, 1024);
const t4 = t.subarray(1024, 1280);
const t5 = t.subarray(1280, 1536);
const t6 = t.subarray(1536, 1792);
const t7 = t.subarray(1792, 2048);
const t8 = t.subarray(2048, 2304);
const t9 = t.subarray(2304, 2560);
const t10 = t.subarray(2560, 2816);
const t11 = t.subarray(2816, 3072);
const t12 = t.subarray(3072, 3328);
const t13 = t.subarray(3328, 3584);
const t14 = t.subarray(3584, 3840);
const t15 = t.subarray(3840, 4096);

/**
 * CRC32C of `bytes[start .. end)`, continued from `previous` (0 to begin): the CRC of two pieces is
 * `crc32c(crc32c(0, a, …), b, …)`. Unsigned 32 bits.
 */
export function crc32c(previous: number, bytes: Uint8Array, start: number, end: number): number {
  let crc = ~previous;
  let i = start;
  for (const last = end - slices; i <= last; i += slices) {
    crc = t15[(crc ^ bytes[i]!) & 0xff]! ^
      t14[((crc >>> 8) ^ bytes[i + 1]!) & 0xff]! ^
      t13[((crc >>> 16) ^ bytes[i + 2]!) & 0xff]! ^
      t12[((crc >>> 24) ^ bytes[i + 3]!) & 0xff]! ^
      t11[bytes[i + 4]!]! ^
      t10[bytes[i + 5]!]! ^
      t9[bytes[i + 6]!]! ^
      t8[bytes[i + 7]!]! ^
      t7[bytes[i + 8]!]! ^
      t6[bytes[i + 9]!]! ^
      t5[bytes[i + 10]!]! ^
      t4[bytes[i + 11]!]! ^
      t3[bytes[i + 12]!]! ^
      t2[bytes[i + 13]!]! ^
      t1[bytes[i + 14]!]! ^
      t0[bytes[i + 15]!]!;
  }
  for (; i < end; i++) crc = t0[(crc ^ bytes[i]!) & 0xff]! ^ (crc >>> 8);
  return ~crc >>> 0;
}

/** Reads a digest as it lies on the wire: the lowest byte of the CRC first (RFC 3720 §B.4). */
export function digestAt(view: DataView, at: number): number {
  return view.getUint32(at, true);
}

/** Writes `crc` as a digest. */
export function setDigest(view: DataView, at: number, crc: number): void {
  view.setUint32(at, crc, true);
}

function makeTables(): Int32Array {
  const tables = new Int32Array(slices * 256);
  for (let n = 0; n < 256; n++) {
    let crc = n;
    for (let k = 0; k < 8; k++) crc = (crc & 1) !== 0 ? (crc >>> 1) ^ polynomialReflected : crc >>> 1;
    tables[n] = crc;
  }
  for (let s = 1; s < slices; s++) {
    for (let n = 0; n < 256; n++) {
      const before = tables[(s - 1) * 256 + n]!;
      tables[s * 256 + n] = (before >>> 8) ^ tables[before & 0xff]!;
    }
  }
  return tables;
}
