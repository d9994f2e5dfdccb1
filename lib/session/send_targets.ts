// The answer to SendTargets, RFC 7143 §4.3, §13.3 and appendix C.

import { formatSocketAddress } from "../base/network.ts";
import { textAnswer, type TextPair } from "../wire/iscsi/text.ts";
import { normalizeIscsiName } from "../wire/iscsi/names.ts";
import type { TargetDirectory, TargetPortal, TargetRecord } from "./target_directory.ts";

/** Who asks, where. `target` is the session's; null in a discovery session. */
export interface Asker {
  readonly directory: TargetDirectory;
  readonly initiatorName: string;
  readonly portal: TargetPortal;
  readonly target: TargetRecord | null;
}

/** "All" in discovery sessions, a name in both kinds, nothing (the session's own target) in normal ones. */
export function sendTargets(asker: Asker, value: string): TextPair[] {
  const reject: TextPair[] = [{ key: "SendTargets", value: textAnswer.reject }];
  if (value === "All") {
    if (asker.target !== null) return reject; // "MUST NOT be supported on an operational session"
    return asker.directory.visible(asker.initiatorName, asker.portal).flatMap((t) => describe(asker, t));
  }
  if (value === "") return asker.target === null ? reject : describe(asker, asker.target);
  const name = normalizeIscsiName(value, "tolerant");
  if (name === null) return reject;
  // A target that this initiator may not use is as unknown to it as one that is not there: no pairs at all.
  const found = asker.directory.visible(asker.initiatorName, asker.portal).find((t) => t.name === name);
  return found === undefined ? [] : describe(asker, found);
}

function describe(asker: Asker, target: TargetRecord): TextPair[] {
  const pairs: TextPair[] = [{ key: "TargetName", value: target.name }];
  for (const portal of asker.directory.portalsOf(target, asker.portal)) {
    const value = `${formatSocketAddress(portal.address)},${portal.targetPortalGroupTag}`;
    pairs.push({ key: "TargetAddress", value });
  }
  return pairs;
}
