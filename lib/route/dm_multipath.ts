// Linux's device-mapper target "multipath" (drivers/md/dm-mpath.c): the table of one map, and what its status tells.

import { assert } from "../base/assert.ts";

/**
 * The table of a map over block devices ("8:16"), the first group that has a path left being used, and in it the path that is
 * expected to be the quickest. Without a path commands are held until somebody says fail_if_no_path.
 */
export function multipathTable(sectors: number, groups: readonly (readonly string[])[]): string {
  const used = groups.filter((group) => group.length > 0);
  assert(sectors > 0 && used.length > 0, "a map without sectors or paths");
  const parts = used.map((group) =>
    `service-time 0 ${group.length} 1 ${group.map((d) => `${d} 1`).join(" ")}`
  );
  return `0 ${sectors} multipath 1 queue_if_no_path 0 ${used.length} 1 ${parts.join(" ")}`;
}

export interface MapStatus {
  /** The group in use, from 1. */
  readonly group: number;
  readonly paths: readonly { readonly device: string; readonly failed: boolean }[];
}

/** What a line of status tells; null: it is no status of a map. */
export function statusOfMap(line: string): MapStatus | null {
  const words = line.trim().split(/\s+/);
  if (words[2] !== "multipath") return null;
  const features = 3; // a number, and so many words; then the same of the handler
  const handler = features + 1 + Number(words[features]);
  const group = Number(words[handler + 1 + Number(words[handler]) + 1]);
  if (!Number.isInteger(group)) return null;
  const paths: { device: string; failed: boolean }[] = [];
  for (const [i, word] of words.entries()) {
    const state = words[i + 1];
    if (/^\d+:\d+$/.test(word) && (state === "A" || state === "F")) {
      paths.push({ device: word, failed: state === "F" });
    }
  }
  return { group, paths };
}
