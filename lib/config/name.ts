// Names of groups, members and volumes, and the iSCSI names made of them (RFC 7143 §4.2.7). Each function returns what is
// wrong, as the end of a sentence, or null.

import { iscsiNameBytesMax, parseIscsiName } from "../wire/iscsi/names.ts";

const nameCharactersMax = 64;

export const nameExpected =
  `1 to ${nameCharactersMax} lower case letters, digits, dots and hyphens, with a letter or digit at both ends`;

/** Names of volumes end their iSCSI names; names of members and volumes are parts of metadata keys, URLs and file names. */
export function nameProblem(name: string): string | null {
  if (name === "") return "it is empty";
  if (name.length > nameCharactersMax) {
    return `it has ${name.length} characters; ${nameCharactersMax} are allowed`;
  }
  const bad = /[^a-z0-9.-]/u.exec(name);
  if (bad !== null) {
    return /[A-Z]/.test(bad[0]) ? "it has upper case letters" : `it contains ${JSON.stringify(bad[0])}`;
  }
  return /^[a-z0-9]/.test(name) && /[a-z0-9]$/.test(name) ? null : "it begins or ends with a dot or hyphen";
}

export const iqnPrefixExpected =
  '"iqn.", a year and month in which you owned a domain, and the domain reversed, such as "iqn.2026-01.com.example" or "iqn.2026-01.com.example:san1"';

/** RFC 7143 §4.2.7.4. */
export function iqnPrefixProblem(prefix: string): string | null {
  if (!prefix.startsWith("iqn.")) return 'it does not begin with "iqn."';
  const parsed = parseIscsiName(prefix);
  if (parsed.kind !== "name") return `as an iSCSI name it ${parsed.reason}`;
  if (parsed.name !== prefix) return `it is not in normal form, which is "${parsed.name}"`;
  return prefix.endsWith(":") ? 'it ends with ":", which is put between it and the volume' : null;
}

/** The iSCSI name of a volume. */
export function targetName(iqnPrefix: string, volumeName: string): string {
  return `${iqnPrefix}:${volumeName}`;
}

export const initiatorPatternExpected =
  'an initiator name in which "*" stands for anything, such as "iqn.2026-01.com.example:*"';

export function initiatorPatternProblem(pattern: string): string | null {
  if (pattern === "") return "it is empty";
  if (new TextEncoder().encode(pattern).length > iscsiNameBytesMax) {
    return `it has more than ${iscsiNameBytesMax} bytes`;
  }
  const bad = /[\s,\p{C}]/u.exec(pattern);
  return bad === null ? null : `it contains ${JSON.stringify(bad[0])}, which no initiator name has`;
}
