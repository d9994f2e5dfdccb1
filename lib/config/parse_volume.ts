// [[volume]] with its access rules.

import { limits } from "../base/limits.ts";
import { parseIscsiName } from "../wire/iscsi/names.ts";
import type { ChapConfig, GroupConfig, SecretSource, VolumeConfig } from "./config.ts";
import {
  initiatorPatternExpected,
  initiatorPatternProblem,
  nameExpected,
  nameProblem,
  targetName,
} from "./name.ts";
import { pathIn, refuseTwice } from "./parse_group.ts";
import { type Check, type Found, right, type TableReader, unless, wrong } from "./reader.ts";
import {
  chapSecretBytesWindowsMax,
  chapSecretExpected,
  chapSecretProblem,
  chapUserExpected,
  chapUserProblem,
} from "./secret.ts";
import { formatSize, parseSize, sizeExpected } from "./size.ts";

/** Null for `group`: its table could not be read, and what depends on it is not checked. */
export function readVolumes(root: TableReader, group: GroupConfig | null): VolumeConfig[] {
  const names: Found<string>[] = [];
  const volumes = root.tables("volume", limits.volumesMax).flatMap((table) => {
    const volume = readVolume(table, group, names);
    return volume === null ? [] : [volume];
  });
  refuseTwice(root, names, (name) => name);
  return volumes;
}

function readVolume(
  table: TableReader,
  group: GroupConfig | null,
  names: Found<string>[],
): VolumeConfig | null {
  const name = table.requiredText("name", `"${nameExpected}"`, volumeName(group));
  if (name !== null) names.push(name);
  const block = table.quantity("block_size", "512 or 4096", blockSize);
  const blockBytes = block?.value ?? 512;
  if (!table.has("size")) table.missing("size", sizeExpected);
  const size = table.quantity("size", sizeExpected, volumeSize(blockBytes, group?.pageBytes ?? null));
  const writeCache = table.flag("write_cache");
  const access = readAccess(table);
  table.finish();
  if (name === null || size === null) return null;
  return {
    name: name.value,
    sizeBytes: size.value,
    blockBytes,
    writeCache: writeCache?.value ?? true,
    ...access,
    line: table.place.line,
  };
}

/** initiators, chap and mutual: who may log in. */
export function readAccess(table: TableReader): Pick<VolumeConfig, "initiators" | "chap" | "mutual"> {
  const initiators = table.texts(
    "initiators",
    initiatorPatternExpected,
    limits.registrationsMax,
    unless(initiatorPatternProblem),
  );
  if (initiators?.value.length === 0) {
    table.complaints.warn(initiators, "nobody can use the volume", 'patterns, or ["*"] to open it');
  }
  const chap = readChap(table, "chap");
  const mutual = readChap(table, "mutual");
  if (table.has("mutual") && !table.has("chap")) {
    table.missing("chap", '{ user = "…", secret_file = "…" }: mutual CHAP is an addition to CHAP');
  }
  if (chap !== null && mutual !== null && sameSecret(chap.secret, mutual.secret)) {
    const found = { key: table.keyOf("mutual"), place: table.entry("mutual")!.place, shown: "" };
    table.complaints.complain(found, "it has the secret of chap", "a secret of its own (RFC 7143 §9.2.1)");
  }
  return { initiators: initiators?.value.map(({ value }) => value) ?? null, chap, mutual };
}

function volumeName(group: GroupConfig | null): (text: string) => Check<string> {
  return (text) => {
    const reason = nameProblem(text);
    if (reason !== null) return wrong(reason);
    const name = targetName(group?.iqnPrefix ?? "iqn.2026-01.x", text);
    const parsed = parseIscsiName(name);
    return parsed.kind === "name" ? right(text) : wrong(`the iSCSI name "${name}" ${parsed.reason}`);
  };
}

function blockSize(given: string | number): Check<512 | 4096> {
  const bytes = parseSize(given);
  return bytes === 512 || bytes === 4096 ? right(bytes) : wrong("it is no block size");
}

function volumeSize(blockBytes: number, pageBytes: number | null): (given: string | number) => Check<number> {
  return (given) => {
    const bytes = parseSize(given);
    if (bytes === null) return wrong("it is not a size");
    if (bytes % blockBytes !== 0) {
      const next = Math.ceil(bytes / blockBytes) * blockBytes;
      return wrong(
        `${bytes} bytes are not a multiple of the block size ${blockBytes} (${formatSize(next)} is the next)`,
      );
    }
    if (pageBytes !== null && bytes / pageBytes > limits.volumePagesMax) {
      return wrong(`it has more than ${limits.volumePagesMax} pages of ${formatSize(pageBytes)}`);
    }
    return right(bytes);
  };
}

/** chap or mutual. Nothing of it but the user is ever shown. */
function readChap(volume: TableReader, name: "chap" | "mutual"): ChapConfig | null {
  const expected = '{ user = "…", secret_file = "…" } or { user = "…", secret = "…" }';
  const chap = volume.inner(name, expected, true);
  if (chap === null) return null;
  const user = chap.requiredText("user", chapUserExpected, unless(chapUserProblem));
  const inline = chap.text("secret", chapSecretExpected, unless(chapSecretProblem));
  const file = chap.text("secret_file", "a path, relative to this file or absolute", pathIn(chap), false);
  chap.finish();
  if (chap.has("secret") === chap.has("secret_file")) {
    const found = { key: chap.key, place: chap.place, shown: "" };
    const reason = chap.has("secret") ? "it has secret and secret_file" : "it has no secret";
    chap.complaints.complain(found, reason, "either secret_file or secret");
  }
  if (inline !== null && new TextEncoder().encode(inline.value).length > chapSecretBytesWindowsMax) {
    const sentence = `Windows initiators take secrets of ${chapSecretBytesWindowsMax} bytes at most`;
    chap.complaints.warn(inline, sentence, "");
  }
  const secret: SecretSource | null = inline !== null
    ? { kind: "inline", secret: inline.value }
    : file !== null
    ? { kind: "file", path: file.value }
    : null;
  return user === null || secret === null ? null : { user: user.value, secret };
}

function sameSecret(a: SecretSource, b: SecretSource): boolean {
  if (a.kind === "inline") return b.kind === "inline" && a.secret === b.secret;
  return b.kind === "file" && a.path === b.path;
}
