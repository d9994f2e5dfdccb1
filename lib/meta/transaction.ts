// What every driver asks of a transaction before it carries it out. A breach is our own mistake, so an assertion.

import { assert } from "../base/assert.ts";
import { limits } from "../base/limits.ts";
import type { Change, Compare } from "./metadata.ts";

/** Keys are printable ASCII, so that every driver sorts them alike. A prefix may be empty. */
export function checkPrefix(prefix: string): void {
  assert(/^[\x21-\x7e]*$/.test(prefix), `metadata key ${JSON.stringify(prefix)} is not printable ASCII`);
  assert(prefix.length <= limits.metadataKeyLengthMax, `metadata key "${prefix}" is too long`);
}

export function checkKey(key: string): void {
  assert(key.length > 0, "a metadata key is empty");
  checkPrefix(key);
}

/** The first key after all keys that begin with `prefix`. */
export function prefixEnd(prefix: string): string {
  return `${prefix}\x7f`;
}

export function checkTransaction(compares: readonly Compare[], changes: readonly Change[]): void {
  assert(
    compares.length <= limits.metadataChangesMax && changes.length <= limits.metadataChangesMax,
    `a metadata transaction has ${compares.length} comparisons and ${changes.length} changes`,
  );
  for (const compare of compares) checkKey(compare.key);
  const seen = new Set<string>();
  let bytes = 0;
  for (const change of changes) {
    checkKey(change.key);
    assert(!seen.has(change.key), `a metadata transaction changes "${change.key}" twice`);
    seen.add(change.key);
    if (change.kind === "put") bytes += change.value.length;
  }
  assert(bytes <= limits.metadataTransactionBytesMax, `a metadata transaction has ${bytes} bytes of values`);
}
