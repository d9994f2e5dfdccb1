import { createHash } from "node:crypto";

/** The multipath disk's number: of one host and volume, the same at every start. 16 bytes. */
export function diskOf(host: Uint8Array, volume: string): Uint8Array {
  return new Uint8Array(createHash("sha256").update(host).update(volume).digest().subarray(0, 16));
}
