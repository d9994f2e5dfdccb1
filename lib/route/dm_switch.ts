// A route table in the language of Linux's device-mapper target "switch" (kernel documentation, "dm-switch"): regions of one
// page, each mapped to one path by its number. Messages name mappings in order; a pattern that repeats is R<n>,<m>: the last
// n mappings once more for the next m regions. All numbers of messages are hexadecimal.

import { assert } from "../base/assert.ts";

/** The longest pattern that is looked for: a table striped over more paths in odd shares is written out. */
const periodMax = 64;
/** Characters of one message: far below what an ioctl or a command line takes. */
const messageLengthMax = 4_000;
const sectorBytes = 512;

/** The device's table: `paths` are block devices, each of the whole volume. */
export function switchTable(sizeBytes: number, pageBytes: number, paths: readonly string[]): string {
  assert(sizeBytes % sectorBytes === 0 && paths.length > 0, "a device without sectors or paths");
  const devices = paths.map((path) => `${path} 0`).join(" ");
  return `0 ${sizeBytes / sectorBytes} switch ${paths.length} ${pageBytes / sectorBytes} 0 ${devices}`;
}

/** Messages that map every region; `paths[i]`: number of region i's path. */
export function regionMappings(paths: Uint8Array): string[] {
  const messages: string[] = [];
  let message = "";
  for (let region = 0; region < paths.length;) {
    const { period, length } = longestRepeat(paths, region);
    const repeat = `R${hex(period)},${hex(length)}`;
    // In a message of its own a repetition has nothing before it: the kernel counts regions anew.
    const repeats = message !== "" && length > repeat.length / 3;
    const part = repeats
      ? repeat
      : message === ""
      ? `${hex(region)}:${hex(paths[region]!)}`
      : `:${hex(paths[region]!)}`;
    if (message.length + 1 + part.length > messageLengthMax) {
      messages.push(message);
      message = "";
      continue; // written for the next message
    }
    message = message === "" ? part : `${message} ${part}`;
    region += repeats ? length : 1;
  }
  if (message !== "") messages.push(message);
  return messages.map((text) => `set_region_mappings ${text}`);
}

/** Messages that map the regions which are not as `before`. Both have the same length. */
export function regionChanges(before: Uint8Array, paths: Uint8Array): string[] {
  assert(before.length === paths.length, "a table of another size");
  const messages: string[] = [];
  let message = "";
  for (let region = 0; region < paths.length; region++) {
    if (before[region] === paths[region]) continue;
    const part = `${hex(region)}:${hex(paths[region]!)}`;
    if (message.length + 1 + part.length > messageLengthMax) {
      messages.push(message);
      message = "";
    }
    message = message === "" ? part : `${message} ${part}`;
  }
  if (message !== "") messages.push(message);
  return messages.map((text) => `set_region_mappings ${text}`);
}

/** How far what comes is what came: the period that carries furthest. */
function longestRepeat(paths: Uint8Array, start: number): { period: number; length: number } {
  let best = { period: 1, length: 0 };
  for (let period = 1; period <= Math.min(periodMax, start); period++) {
    let end = start;
    while (end < paths.length && paths[end] === paths[end - period]) end++;
    if (end - start > best.length) best = { period, length: end - start };
    if (end === paths.length) break;
  }
  return best;
}

function hex(value: number): string {
  return value.toString(16);
}
