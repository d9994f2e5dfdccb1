// What a volume may be: each function returns what is wrong, as the end of a sentence, or null.

import { limits } from "../base/limits.ts";
import {
  initiatorPatternExpected,
  initiatorPatternProblem,
  nameExpected,
  nameProblem,
  targetName,
} from "../config/name.ts";
import {
  chapSecretExpected,
  chapSecretProblem,
  chapUserExpected,
  chapUserProblem,
} from "../config/secret.ts";
import type { ChapRecord, VolumeRecord } from "../meta/records.ts";
import { pagesOfVolume } from "../route/route_records.ts";
import { parseIscsiName } from "../wire/iscsi/names.ts";

/** A volume's name is the end of its iSCSI name (RFC 7143 §4.2.7). */
export function volumeNameProblem(name: string, iqnPrefix: string): string | null {
  const problem = nameProblem(name);
  if (problem !== null) return `${JSON.stringify(name)} is no name: ${problem}. Give ${nameExpected}`;
  const parsed = parseIscsiName(targetName(iqnPrefix, name));
  return parsed.kind === "name" ? null : `its iSCSI name "${targetName(iqnPrefix, name)}" ${parsed.reason}`;
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

/** Mutual CHAP with the secret of the other direction would let an answer be reflected (RFC 7143 §9.2.1). */
export function chapProblem(chap: ChapRecord | null, mutual: ChapRecord | null): string | null {
  for (const [what, identity] of [["CHAP", chap], ["mutual CHAP", mutual]] as const) {
    if (identity === null) continue;
    const user = chapUserProblem(identity.user);
    if (user !== null) return `the ${what} user cannot be used: ${user}. Give ${chapUserExpected}`;
    const secret = chapSecretProblem(identity.secret);
    if (secret !== null) return `the ${what} secret cannot be used: ${secret}. Give ${chapSecretExpected}`;
  }
  if (mutual === null) return null;
  if (chap === null) {
    return "mutual CHAP is an addition to CHAP: give a user and secret for the initiator too";
  }
  if (chap.secret === mutual.secret) return "the CHAP and mutual CHAP secrets are the same: they must differ";
  return null;
}

/** Patterns of initiator names, in which `*` stands for anything. */
export function initiatorsProblem(patterns: readonly string[] | null): string | null {
  if (patterns === null) return null;
  if (patterns.length > limits.registrationsMax) {
    return `${patterns.length} initiator patterns; ${limits.registrationsMax} are allowed`;
  }
  for (const pattern of patterns) {
    const problem = initiatorPatternProblem(pattern);
    if (problem !== null) {
      return `${JSON.stringify(pattern)} is no pattern: ${problem}. Give ${initiatorPatternExpected}`;
    }
  }
  return null;
}
