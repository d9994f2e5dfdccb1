// appliance.toml, parsed and checked as a whole before anything starts (DESIGN.md, "Fixed interfaces"). Reads no files.

import { formatSocketAddress, type SocketAddress } from "../base/network.ts";
import { isLoopback } from "./address.ts";
import type {
  AgentSettings,
  BalanceConfig,
  Config,
  DiskConfig,
  GroupConfig,
  MemberSettings,
  ProxySettings,
  VolumeConfig,
} from "./config.ts";
import { parseDocument, type Place, type TableValue } from "./document.ts";
import { balanceDefaults, readBalance } from "./parse_balance.ts";
import { readDisks, readGroup, readMember } from "./parse_group.ts";
import { readAgent, readProxy } from "./parse_proxy.ts";
import { readVolumes } from "./parse_volume.ts";
import type { Problem } from "./problem.ts";
import { Complaints, TableReader } from "./reader.ts";

export type ParseResult =
  | { readonly ok: true; readonly config: Config; readonly warnings: readonly Problem[] }
  | { readonly ok: false; readonly problems: readonly Problem[]; readonly warnings: readonly Problem[] };

/** `fileName` as the caller names it: it stands in messages, and paths in the text are relative to it. */
export function parseConfig(text: string, fileName: string): ParseResult {
  const complaints = new Complaints(fileName);
  const document = parseDocument(text);
  let config: Config | null = null;
  if (document.kind === "syntaxError") {
    complaints.add("", document.place, `Cannot read it as TOML: ${document.reason}.`, "");
  } else config = readDocument(document.root, complaints);
  const warnings = inOrder(complaints.warnings);
  if (config !== null && complaints.problems.length === 0) return { ok: true, config, warnings };
  return { ok: false, problems: inOrder(complaints.problems), warnings };
}

function inOrder(problems: readonly Problem[]): Problem[] {
  return problems.toSorted((a, b) => a.line - b.line || (a.column ?? 0) - (b.column ?? 0));
}

/** Null only when something was complained about. */
function readDocument(table: TableValue, complaints: Complaints): Config | null {
  const root = new TableReader(complaints, "", table, { line: 1, column: 1 });
  const role = roleOf(root);
  const group = readGroup(root, role);
  const member = readMember(root, role === "member");
  const proxy = readProxy(root, role === "proxy");
  const agent = readAgent(root, role === "agent");
  const disks = readDisks(root, group?.pageBytes ?? null);
  const volumes = readVolumes(root, group);
  const balance = role === "member" ? readBalance(root) : balanceDefaults;
  root.finish();
  if (role !== "member") refuseBeside(root, role);
  if (member !== null) {
    checkAddresses(root, [
      ...member.portals.map((portal, i) => [`member.portals[${i}]`, portal] as const),
      ["member.admin", member.admin],
      ["member.peer", member.peer],
    ]);
    warnUnreachable(root, member, volumes);
    if (group !== null) checkGroupPortal(root, group, member);
  }
  if (proxy !== null) checkAddresses(root, [["proxy.listen", proxy.listen], ["proxy.admin", proxy.admin]]);
  return composed(complaints.file, { group, member, proxy, agent, disks, volumes, balance });
}

interface Parts {
  readonly group: GroupConfig | null;
  readonly member: MemberSettings | null;
  readonly proxy: ProxySettings | null;
  readonly agent: AgentSettings | null;
  readonly disks: readonly DiskConfig[];
  readonly volumes: readonly VolumeConfig[];
  readonly balance: BalanceConfig;
}

function composed(file: string, parts: Parts): Config | null {
  const { group, member, proxy, agent, disks, volumes, balance } = parts;
  if (group === null) return null;
  if (proxy !== null) return { role: "proxy", file, group, proxy };
  if (agent !== null) return { role: "agent", file, group, agent };
  const { metadata } = group;
  if (member === null || metadata === null) return null;
  return { role: "member", file, group: { ...group, metadata }, member, disks, volumes, balance };
}

/** A file is of one role. One that is of none is read as a member's, so that its other faults are told too. */
function roleOf(root: TableReader): Config["role"] {
  const [role, other] = (["proxy", "agent", "member"] as const).filter((name) => root.has(name));
  if (role !== undefined && other !== undefined) {
    const place = root.table.entries.get(role)!.place;
    root.complaints.add(role, place, `Cannot have [${other}] and [${role}] in one file.`, "one of them");
  }
  return role ?? "member";
}

function refuseBeside(root: TableReader, role: "proxy" | "agent"): void {
  for (const name of ["disk", "volume"]) {
    const entry = root.table.entries.get(name);
    if (entry === undefined) continue;
    const what = role === "proxy" ? "a proxy" : "a host agent";
    const sentence = `Cannot have [[${name}]] beside [${role}]: ${what} stores nothing.`;
    root.complaints.add(name, entry.place, sentence, `[[${name}]] in the file of a member`);
  }
}

/** No address twice: the second listener would fail at the start. */
function checkAddresses(
  root: TableReader,
  claims: readonly (readonly [string, SocketAddress | null])[],
): void {
  const users = new Map<string, string>();
  for (const [key, address] of claims) {
    if (address === null) continue;
    const text = formatSocketAddress(address);
    const user = users.get(text);
    if (user === undefined) {
      users.set(text, key);
      continue;
    }
    const found = { key, place: placeOf(root, key), shown: `"${text}"` };
    root.complaints.complain(found, `${user} has the same address`, "an address that nothing else uses");
  }
}

/** Place of "table.key" or "table.key[n]"; of the table where the key stands for its default. */
function placeOf(root: TableReader, key: string): Place {
  const [, table, name, index] = /^(\w+)\.(\w+)(?:\[(\d+)\])?$/.exec(key)!;
  const entry = root.table.entries.get(table!);
  const value = entry?.value.kind === "table" ? entry.value.entries.get(name!)?.value : undefined;
  const item = value?.kind === "array" ? value.items[Number(index)] : value;
  return (item ?? entry)?.place ?? root.place;
}

/** The group's address goes from machine to machine: it is none of a member's own, and not one that stays on a machine. */
function checkGroupPortal(
  root: TableReader,
  { portal }: GroupConfig,
  { portals, peer }: MemberSettings,
): void {
  if (portal === null) return;
  const found = {
    key: "group.portal",
    place: placeOf(root, "group.portal"),
    shown: `"${formatSocketAddress(portal)}"`,
  };
  const expected = "an address in the network of a portal that is no member's own";
  if (isLoopback(portal)) {
    root.complaints.complain(
      found,
      "it is a loopback address, which no other machine can take over",
      expected,
    );
  }
  if ([...portals, peer].some(({ hostname }) => hostname === portal.hostname)) {
    root.complaints.complain(found, "this member has the same IP address for itself", expected);
  } else if (!portals.some(({ hostname }) => hostname.includes(":") === portal.hostname.includes(":"))) {
    const family = portal.hostname.includes(":") ? "IPv6" : "IPv4";
    root.complaints.warn(
      found,
      `no portal of this member is an ${family} address, so it cannot hold it`,
      expected,
    );
  }
}

/** A volume with neither initiators nor CHAP is served on loopback portals only, and here there is none. */
function warnUnreachable(root: TableReader, member: MemberSettings, volumes: readonly VolumeConfig[]): void {
  if (member.portals.some(isLoopback) || member.portals.length === 0) return;
  volumes.forEach((volume, i) => {
    if (volume.initiators !== null || volume.chap !== null) return;
    const found = { key: `volume[${i}]`, place: { line: volume.line, column: 1 }, shown: "" };
    root.complaints.warn(
      found,
      `nobody can use volume "${volume.name}": without initiators or chap it is served on loopback portals only, and no portal is one`,
      'initiators = ["iqn…"], or chap = { … }, or initiators = ["*"] to open it to everybody',
    );
  });
}
