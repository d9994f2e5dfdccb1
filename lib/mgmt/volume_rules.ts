// What a volume may be: each function returns what is wrong, as the end of a sentence, or null.

import { limits } from "../base/limits.ts";
import type { ChapRecord, VolumeRecord } from "../meta/records.ts";
import { pagesOfVolume } from "../route/route_records.ts";
import { iscsiNameBytesMax, parseIscsiName } from "../wire/iscsi/names.ts";

/** A volume's name is the end of its iSCSI name (RFC 7143 §4.2.7) and appears in URLs, keys and file names. */
export function volumeNameProblem(name: string, iqnPrefix: string): string | null {
  if (!/^[a-z0-9]([a-z0-9.-]{0,62}[a-z0-9])?$/.test(name)) {
    return "a name has 1 to 64 lower case letters, digits, dots and hyphens, and begins and ends with a letter or digit";
  }
  const parsed = parseIscsiName(`${iqnPrefix}:${name}`);
  return parsed.kind === "name" ? null : `its iSCSI name "${iqnPrefix}:${name}" ${parsed.reason}`;
}

export function blockSizeProblem(blockBytes: number): string | null {
  return blockBytes === 512 || blockBytes === 4096
    ? null
    : `a block size is 512 or 4096 bytes, not ${blockBytes}`;
}

export function sizeProblem(
  volume: Pick<VolumeRecord, "sizeBytes" | "blockBytes" | "pageBytes">,
): string | null {
  const { sizeBytes, blockBytes, pageBytes } = volume;
  if (!Number.isSafeInteger(sizeBytes) || sizeBytes <= 0) return `${sizeBytes} bytes is no size`;
  if (sizeBytes % blockBytes !== 0) {
    const nearest = Math.ceil(sizeBytes / blockBytes) * blockBytes;
    return `${sizeBytes} bytes is no multiple of the block size ${blockBytes}; ${nearest} is the next`;
  }
  if (pagesOfVolume(volume) > limits.volumePagesMax) {
    return `${sizeBytes} bytes is more than ${limits.volumePagesMax} pages of ${pageBytes} bytes`;
  }
  return null;
}

/**
 * Initiators refuse shorter secrets (RFC 7143 §9.2.1 asks for 96 bits; Windows takes 12 to 16 bytes), and one secret
 * for both directions would let an answer be reflected (ibid.).
 */
export function chapProblem(chap: ChapRecord | null, mutual: ChapRecord | null): string | null {
  for (const [what, identity] of [["CHAP", chap], ["mutual CHAP", mutual]] as const) {
    if (identity === null) continue;
    if (!/^[\x21-\x7e]{1,223}$/.test(identity.user)) {
      return `a ${what} user has 1 to 223 visible ASCII characters`;
    }
    const bytes = new TextEncoder().encode(identity.secret).length;
    if (bytes < secretBytesMin || bytes > secretBytesMax) {
      return `the ${what} secret has ${bytes} bytes; ${secretBytesMin} to ${secretBytesMax} are allowed ` +
        "(Windows takes 16 at most)";
    }
  }
  if (mutual === null) return null;
  if (chap === null) {
    return "mutual CHAP is an addition to CHAP: give a user and secret for the initiator too";
  }
  if (chap.secret === mutual.secret) return "the CHAP and mutual CHAP secrets are the same: they must differ";
  return null;
}

const secretBytesMin = 12;
const secretBytesMax = 255;

/** Patterns of initiator names, in which `*` stands for anything. */
export function initiatorsProblem(patterns: readonly string[] | null): string | null {
  if (patterns === null) return null;
  if (patterns.length > limits.registrationsMax) {
    return `${patterns.length} initiator patterns; ${limits.registrationsMax} are allowed`;
  }
  for (const pattern of patterns) {
    const bytes = new TextEncoder().encode(pattern).length;
    if (bytes === 0 || bytes > iscsiNameBytesMax || /[\s,\p{C}]/u.test(pattern)) {
      return `${
        JSON.stringify(pattern)
      } is no pattern of an initiator name, such as "iqn.2026-01.com.example:*"`;
    }
  }
  return null;
}
