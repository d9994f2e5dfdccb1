// [group], [member] and [[disk]].

import { loginPolicies, type LoginPolicy } from "../balance/view.ts";
import type { SocketAddress } from "../base/network.ts";
import { limits } from "../base/limits.ts";
import { isLoopback, parseAddress } from "./address.ts";
import type { Config, DiskConfig, GroupConfig, MemberSettings, MetadataConfig, TlsFiles } from "./config.ts";
import { iqnPrefixExpected, iqnPrefixProblem, nameExpected, nameProblem } from "./name.ts";
import { pathProblem, resolvePath } from "./path.ts";
import { type Check, type Found, right, type TableReader, unless, wrong } from "./reader.ts";
import { formatSize, parseSize, sizeExpected } from "./size.ts";

const MiB = 2 ** 20;
const pageBytesDefault = 4 * MiB;
const peerPort = 3262;
export const pathExpected = "a path, relative to this file or absolute";
export const addressExpected = 'a numeric address and port, such as "10.0.0.1:3260" or "[fd00::1]:3260"';
export const adminExpected = 'a loopback address and port, such as "127.0.0.1:3280"';

/** Null when a part that everything needs is missing or wrong. */
export function readGroup(root: TableReader, role: Config["role"]): GroupConfig | null {
  const group = root.inner("group", "a table: [group]");
  if (group === null) {
    if (!root.has("group")) root.missing("[group]", "the group's name, metadata, secret_file and iqn_prefix");
    return null;
  }
  const name = group.requiredText("name", `"${nameExpected}"`, unless(nameProblem));
  const metadata = readMetadata(group, role);
  const secretFile = group.requiredText("secret_file", pathExpected, pathIn(group));
  const iqnPrefix = group.requiredText("iqn_prefix", iqnPrefixExpected, unless(iqnPrefixProblem));
  const pageBytes = readPageSize(group);
  const portal = group.text("portal", addressExpected, address);
  const loginPolicy = group.text("login_policy", policyExpected, policyOf);
  group.finish();
  if (name === null || secretFile === null || iqnPrefix === null || metadata === undefined) return null;
  return {
    name: name.value,
    metadata,
    secretFile: secretFile.value,
    iqnPrefix: iqnPrefix.value,
    pageBytes,
    portal: portal?.value ?? null,
    loginPolicy: loginPolicy?.value ?? "affinity",
  };
}

const policyExpected = `one of ${loginPolicies.map((policy) => `"${policy}"`).join(", ")}`;

function policyOf(text: string): Check<LoginPolicy> {
  const policy = loginPolicies.find((known) => known === text);
  return policy === undefined ? wrong("there is no such policy") : right(policy);
}

/** Bytes of a page. When what is given is wrong, the default goes on, so that the rest can be checked. */
function readPageSize(group: TableReader): number {
  const expected = "a power of two from 1MiB to 64MiB";
  const pageSize = group.quantity("page_size", expected, (given) => {
    const bytes = parseSize(given);
    if (bytes === null) return wrong("it is not a size");
    if (bytes < MiB || bytes > 64 * MiB) return wrong(`it is ${formatSize(bytes)}`);
    return Number.isInteger(Math.log2(bytes)) ? right(bytes) : wrong("it is not a power of two");
  });
  return pageSize?.value ?? pageBytesDefault;
}

const metadataExpected = '"sqlite:PATH" or "etcd:https://HOST:2379,https://HOST:2379"';

/** Undefined: missing or wrong. */
function readMetadata(group: TableReader, role: Config["role"]): MetadataConfig | null | undefined {
  const tls = readTls(group);
  const required = role === "member";
  const metadata = required
    ? group.requiredText("metadata", metadataExpected, metadataIn(group))
    : group.text("metadata", metadataExpected, metadataIn(group));
  if (metadata === null) return required || group.has("metadata") ? undefined : null;
  const { value } = metadata;
  if (value.kind === "sqlite") {
    if (tls !== null) {
      const found = { key: group.keyOf("metadata_tls"), place: tls.place, shown: "" };
      group.complaints.complain(
        found,
        "the metadata is in SQLite, which needs none",
        "no metadata_tls, or etcd",
      );
    }
    return value;
  }
  warnPlainHttp(group, { ...metadata, value: value.endpoints });
  return { ...value, tls: tls?.value ?? null };
}

function metadataIn(group: TableReader): (text: string) => Check<MetadataConfig> {
  return (text) => {
    const colon = text.indexOf(":");
    const kind = text.slice(0, colon);
    const rest = text.slice(colon + 1);
    if (kind === "sqlite") {
      const path = pathIn(group)(rest);
      return path.ok ? right({ kind: "sqlite", path: path.value }) : path;
    }
    if (kind !== "etcd") return wrong('it begins with neither "sqlite:" nor "etcd:"');
    const endpoints: string[] = [];
    for (const part of rest.split(",")) {
      const endpoint = endpointOf(part.trim());
      if (!endpoint.ok) return endpoint;
      endpoints.push(endpoint.value);
    }
    return right({ kind: "etcd", endpoints, tls: null });
  };
}

function endpointOf(text: string): Check<string> {
  const url = URL.parse(text);
  if (url === null || (url.protocol !== "https:" && url.protocol !== "http:")) {
    return wrong(`${JSON.stringify(text)} is not an http or https address`);
  }
  if (url.username !== "" || url.password !== "") {
    return wrong("an endpoint carries a user or password; members prove themselves with metadata_tls");
  }
  if (url.pathname !== "/" || url.search !== "" || url.hash !== "") {
    return wrong(`${JSON.stringify(text)} has something behind the host and port`);
  }
  return right(url.origin);
}

function warnPlainHttp(group: TableReader, metadata: Found<readonly string[]>): void {
  const plain = metadata.value.filter((endpoint) => {
    const url = new URL(endpoint);
    const hostname = url.hostname.replace(/^\[|\]$/g, "");
    return url.protocol === "http:" && hostname !== "localhost" && !isLoopback({ hostname });
  });
  if (plain.length === 0) return;
  group.complaints.warn(
    metadata,
    `${plain.join(", ")} is not encrypted: whoever is on the way can read CHAP secrets and change routes`,
    "https and metadata_tls",
  );
}

function readTls(group: TableReader): Found<TlsFiles> | null {
  const tls = group.inner("metadata_tls", '{ ca = "ca.pem", cert = "m.pem", key = "m.key" }');
  if (tls === null) return null;
  const ca = tls.text("ca", pathExpected, pathIn(tls));
  const cert = tls.text("cert", pathExpected, pathIn(tls));
  const key = tls.text("key", pathExpected, pathIn(tls));
  tls.finish();
  if (tls.has("cert") !== tls.has("key")) {
    tls.missing(tls.has("cert") ? "key" : "cert", "the file that belongs to it");
  }
  return {
    value: { ca: ca?.value ?? null, cert: cert?.value ?? null, key: key?.value ?? null },
    key: tls.key,
    place: tls.place,
    shown: "",
  };
}

/** Null when it is not there, or wrong. */
export function readMember(root: TableReader, required: boolean): MemberSettings | null {
  const member = root.inner("member", "a table: [member]");
  if (member === null) {
    if (required && !root.has("member")) {
      root.missing(
        "[member]",
        "the member's name, portals, admin and state_dir (or [proxy], for an initiator-proxy)",
      );
    }
    return null;
  }
  const name = member.requiredText("name", `"${nameExpected}"`, unless(nameProblem));
  const portals = readPortals(member, "portals");
  const peer = member.text("peer", addressExpected, address);
  const admin = member.requiredText("admin", adminExpected, loopbackAddress);
  const stateDir = member.requiredText("state_dir", pathExpected, pathIn(member));
  const engine = member.text("engine", engineExpected, engineOf);
  const workers = member.quantity("workers", workersExpected, workersOf);
  const shortCut = member.text("short_cut", shortCutExpected, shortCutOf);
  const shortCutBytes = member.quantity("short_cut_bytes", shortCutBytesExpected, shortCutBytesOf);
  member.finish();
  const first = portals[0];
  if (name === null || first === undefined || admin === null || stateDir === null) return null;
  return {
    name: name.value,
    portals,
    peer: peer?.value ?? { hostname: first.hostname, port: peerPort },
    admin: admin.value,
    stateDir: stateDir.value,
    engine: engine?.value ?? "auto",
    workers: workers?.value ?? "auto",
    shortCut: shortCut?.value ?? "auto",
    shortCutBytes: shortCutBytes?.value ?? shortCutBytesDefault,
  };
}

const engineExpected = `"auto" or "portable"`;

function engineOf(text: string): Check<"auto" | "portable"> {
  return text === "auto" || text === "portable" ? right(text) : wrong("there is no such I/O engine");
}

const shortCutBytesDefault = 256 * 1024;
const shortCutExpected = '"auto" or "off"';
const shortCutBytesExpected = `a size from 0 to ${formatSize(limits.shortCutBytesMax)}`;

function shortCutOf(given: string): Check<"auto" | "off"> {
  return given === "auto" || given === "off" ? right(given) : wrong("it is neither");
}

function shortCutBytesOf(given: string | number): Check<number> {
  const bytes = Number(given) === 0 ? 0 : parseSize(given);
  if (bytes === null) return wrong("it is not a size");
  return bytes <= limits.shortCutBytesMax ? right(bytes) : wrong(`it is ${formatSize(bytes)}`);
}

const workersExpected = `"auto" or a whole number from 1 to ${limits.workersMax}`;

function workersOf(given: string | number): Check<"auto" | number> {
  if (given === "auto") return right(given);
  if (typeof given === "string") return wrong("it is neither auto nor a number");
  const inRange = Number.isInteger(given) && given >= 1 && given <= limits.workersMax;
  return inRange ? right(given) : wrong("there cannot be so many threads");
}

export function readPortals(table: TableReader, name: string): SocketAddress[] {
  const portals = table.texts(name, addressExpected, limits.portalsMax, address);
  if (portals === null) {
    if (!table.has(name)) table.missing(name, '["10.0.0.1:3260"]');
    return [];
  }
  const given = table.table.entries.get(name)!.value;
  if (given.kind === "array" && given.items.length === 0) {
    table.complaints.complain(portals, "it is empty", `at least one: ${addressExpected}`);
  }
  return portals.value.map(({ value }) => value);
}

/** Smaller ones would hold little but their own slot table. */
const diskPagesMin = 4;

/** `pageBytes` is null when the group's table could not be read. */
export function readDisks(root: TableReader, pageBytes: number | null): DiskConfig[] {
  const found: Found<string>[] = [];
  const disks = root.tables("disk", limits.disksMax).flatMap((table): DiskConfig[] => {
    const path = table.requiredText("path", pathExpected, pathIn(table));
    const size = table.quantity("size", sizeExpected, diskSize(pageBytes ?? pageBytesDefault));
    const direct = table.flag("direct");
    table.finish();
    if (path === null) return [];
    found.push(path);
    if (!table.has("size") && !path.value.startsWith("/dev/")) {
      table.missing("size", `${sizeExpected}: a file is made with it at the disk's first start`);
    }
    return [{
      path: path.value,
      sizeBytes: size?.value ?? null,
      direct: direct?.value ?? false,
      line: table.place.line,
    }];
  });
  refuseTwice(root, found, (path) => path);
  return disks;
}

function diskSize(pageBytes: number): (given: string | number) => Check<number> {
  return (given) => {
    const bytes = parseSize(given);
    if (bytes === null) return wrong("it is not a size");
    if (bytes % 512 !== 0) return wrong(`${bytes} bytes are not a multiple of 512`);
    if (bytes < diskPagesMin * pageBytes) {
      return wrong(`it is less than ${diskPagesMin} pages of ${formatSize(pageBytes)}`);
    }
    return right(bytes);
  };
}

export function refuseTwice<T>(
  table: TableReader,
  found: readonly Found<T>[],
  identity: (value: T) => string,
): void {
  const first = new Map<string, Found<T>>();
  for (const one of found) {
    const id = identity(one.value);
    const other = first.get(id);
    if (other === undefined) first.set(id, one);
    else {
      const where = `${other.key} in line ${other.place.line} is the same`;
      table.complaints.complain(one, where, "each only once");
    }
  }
}

export function pathIn(table: TableReader): (text: string) => Check<string> {
  return (text) => {
    const reason = pathProblem(text);
    return reason === null ? right(resolvePath(table.complaints.file, text)) : wrong(reason);
  };
}

export function address(text: string): Check<SocketAddress> {
  const parsed = parseAddress(text);
  return parsed.kind === "address" ? right(parsed.address) : wrong(parsed.reason);
}

/** Without TLS the admin address must be loopback (DESIGN.md). */
export function loopbackAddress(text: string): Check<SocketAddress> {
  const parsed = address(text);
  if (!parsed.ok || isLoopback(parsed.value)) return parsed;
  return wrong("it is not a loopback address, and the admin interface has no TLS");
}
