// Pieces that the guides of attach_*.ts share.

import type { AttachTarget } from "./attach.ts";

/** The portal a single path uses. */
export function firstPortal(target: AttachTarget): string {
  return target.portals[0] ?? "PORTAL:3260";
}

/** "[::1]:3260" as ["::1", "3260"]. */
export function splitPortal(portal: string): [string, string] {
  const colon = portal.lastIndexOf(":");
  return [portal.slice(0, colon).replace(/^\[|\]$/g, ""), portal.slice(colon + 1)];
}

/** How to tell whether the initiator's own name is among those allowed. */
export function nameNotes(target: AttachTarget): string[] {
  if (target.initiators === null) return [];
  return [`Allowed names: ${target.initiators.join(", ") || "none"}`];
}

/** One word of a POSIX shell. */
export function quote(text: string): string {
  return /^[\w.:@%+-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}

/** A line of bash that asks for a secret into $secret: it stays out of the history. */
export function readSecret(user: string): string {
  return `read -rsp ${quote(`CHAP secret of ${user}: `)} secret; echo`;
}
