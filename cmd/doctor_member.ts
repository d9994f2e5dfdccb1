// What doctor asks of a member's addresses, directories, secrets and disks. Looks only: makes nothing.

import { constants } from "node:fs";
import { access, stat, statfs } from "node:fs/promises";
import { silentLog } from "../lib/base/log.ts";
import { formatSocketAddress, type SocketAddress } from "../lib/base/network.ts";
import type { DiskConfig, MemberConfig } from "../lib/config/mod.ts";
import { DiskOpenError, type FileDisk, openFileDisk } from "../lib/io/file_disk.ts";
import { flowProblems } from "../lib/io/native/flow_tools.ts";
import { systemClock } from "../lib/io/system_clock.ts";
import { readToken } from "../lib/mgmt/http_token.ts";
import { inspectDisk } from "../lib/store/mod.ts";
import type { DiskReport } from "../lib/mgmt/control.ts";
import type { Check } from "./doctor.ts";
import { whyNoFlows } from "./flows.ts";
import { groupAddressOf } from "./target_member.ts";
import { openMetadata } from "./metadata.ts";
import { formatBytes } from "./quantity.ts";

/** Binds the address for a moment. A peer's is needed as soon as there is another member, a portal may come up late. */
export function checkAddress(kind: "portal" | "peer" | "admin", address: SocketAddress): Check {
  const name = `${kind} ${formatSocketAddress(address)}`;
  try {
    Deno.listen({ hostname: address.hostname, port: address.port }).close();
    return { name, outcome: "ok", detail: "free" };
  } catch (error) {
    if (error instanceof Deno.errors.AddrInUse) {
      const advice = `Stop what uses it (ss -ltnp 'sport = :${address.port}'), or choose another port.`;
      return {
        name,
        outcome: kind === "peer" ? "warn" : "fail",
        detail: "in use by another program",
        advice,
      };
    }
    if (error instanceof Deno.errors.AddrNotAvailable) {
      const advice = "Bring the interface up. A portal is retried until its address is there.";
      return {
        name,
        outcome: kind === "admin" ? "fail" : "warn",
        detail: "no interface has this address",
        advice,
      };
    }
    const advice = address.port < 1024
      ? "Ports below 1024 need CAP_NET_BIND_SERVICE; choose a higher one or give it that."
      : "Choose another address.";
    return { name, outcome: "fail", detail: (error as Error).message, advice };
  }
}

export async function checkStateDir(path: string): Promise<Check[]> {
  const name = `state_dir ${path}`;
  const info = await stat(path).catch(() => null);
  if (info === null) return [await creatable(name, path)];
  if (!info.isDirectory()) {
    return [{
      name,
      outcome: "fail",
      detail: "is no directory",
      advice: "Remove it, or name another in state_dir.",
    }];
  }
  const checks: Check[] = [];
  const mode = info.mode & 0o777;
  if (!await writable(path)) checks.push(notWritable(name));
  else if ((mode & 0o022) !== 0) {
    const detail = `mode ${mode.toString(8)}: others may write into it`;
    checks.push({ name, outcome: "warn", detail, advice: `Run: chmod 700 ${path}` });
  } else checks.push({ name, outcome: "ok", detail: `mode ${mode.toString(8)}` });
  checks.push(await checkToken(`${path}/admin.token`));
  return checks;
}

async function checkToken(path: string): Promise<Check> {
  const name = "admin token";
  try {
    const found = await readToken(path);
    return { name, outcome: "ok", detail: found === null ? "made at the first start" : `${path} is private` };
  } catch (error) {
    return { name, outcome: "fail", detail: (error as Error).message, advice: "See above." };
  }
}

/** `made`: a start may make it. */
export async function checkGroupSecret(path: string, made: boolean): Promise<Check> {
  const name = "group secret";
  let info;
  try {
    info = await stat(path);
  } catch (error) {
    if ((error as { code?: string }).code === "ENOENT") {
      return made
        ? { name, outcome: "ok", detail: `${path} is made by the start that creates the group` }
        : { name, outcome: "fail", detail: `there is no ${path}`, advice: "Copy it from a member." };
    }
    return {
      name,
      outcome: "fail",
      detail: (error as Error).message,
      advice: "Run as the user that it belongs to.",
    };
  }
  if (!info.isFile()) return notAFile(name, path);
  const mode = info.mode & 0o777;
  if ((mode & 0o077) === 0) return { name, outcome: "ok", detail: `${path} is private` };
  const detail = `${path} has mode ${mode.toString(8)}: other users can prove to be members`;
  return { name, outcome: "warn", detail, advice: `Run: chmod 600 ${path}` };
}

export async function checkMetadata(group: MemberConfig["group"]): Promise<Check> {
  const { metadata } = group;
  const name = "metadata";
  if (metadata.kind === "etcd") return await checkEtcd(name, group, metadata.endpoints);
  const info = await stat(metadata.path).catch(() => null);
  if (info === null) return await creatable(name, metadata.path);
  if (!info.isFile()) return notAFile(name, metadata.path);
  const directory = directoryOf(metadata.path);
  // SQLite makes its journal beside the file, so the directory must be writable too.
  if (!await writable(metadata.path) || !await writable(directory)) return notWritable(name);
  if (info.size > 0 && !await isDatabase(metadata.path)) {
    const advice = "Stop every member, keep the file, and put back a copy (docs/metadata.md).";
    return { name, outcome: "fail", detail: `${metadata.path} is no SQLite database`, advice };
  }
  return { name, outcome: "ok", detail: `${metadata.path}, ${formatBytes(info.size)}` };
}

/** By its first bytes (https://sqlite.org/fileformat2.html, "Magic Header String"): to open it might change it. */
async function isDatabase(path: string): Promise<boolean> {
  using file = await Deno.open(path);
  const head = new Uint8Array(16);
  await file.read(head);
  return new TextDecoder().decode(head) === "SQLite format 3\0";
}

function notAFile(name: string, path: string): Check {
  return {
    name,
    outcome: "fail",
    detail: `${path} is no file`,
    advice: "Name another in the configuration.",
  };
}

/** What is missing for short cuts, where they are wanted. Finding out makes a table and a rule that are gone at once. */
export function checkShortCut(member: MemberConfig["member"]): Check[] {
  const name = "short cut";
  const unwanted = member.engine === "portable" ? "the engine is the portable one" : whyNoFlows(member);
  if (unwanted !== null) return [{ name, outcome: "ok", detail: `not used: ${unwanted}` }];
  const problems = flowProblems();
  if (problems.length === 0) {
    return [{ name, outcome: "ok", detail: "this machine can lend and borrow connections" }];
  }
  const advice = 'Answers of other members are forwarded, which costs speed only. Or say short_cut = "off".';
  return problems.map((detail) => ({ name, outcome: "warn", detail, advice }));
}

/** Could this member hold the group's address? Asks the network who has it, and changes nothing. */
export async function checkGroupAddress(config: MemberConfig): Promise<Check[]> {
  const floating = groupAddressOf(config, systemClock);
  if (floating === null) return [];
  const name = `group address ${formatSocketAddress(config.group.portal!)}`;
  const problem = floating.problem();
  if (problem !== null) {
    return [{ name, outcome: "warn", detail: problem, advice: "As it is, only other members can have it." }];
  }
  const other = await floating.askForOthers();
  const now = other === null ? "nobody has it now" : `${other} has it now: another member, or a stranger`;
  return [{ name, outcome: "ok", detail: `this member can have it; ${now}` }];
}

/** Asks as a start would. */
async function checkEtcd(
  name: string,
  group: MemberConfig["group"],
  endpoints: readonly string[],
): Promise<Check> {
  try {
    const opened = await openMetadata(group, silentLog, { callMs: 3_000 });
    await opened.close();
    return { name, outcome: "ok", detail: `etcd at ${endpoints.join(", ")} answers` };
  } catch (error) {
    const advice = "A start needs it; a running member does without for as long as its lease holds.";
    return { name, outcome: "fail", detail: (error as Error).message, advice };
  }
}

/** A disk of the configuration that no running member has open. */
export async function checkDisk(config: DiskConfig): Promise<Check> {
  const { path, sizeBytes } = config;
  const name = `disk ${path}`;
  let disk: FileDisk;
  try {
    disk = openFileDisk(path);
  } catch (error) {
    if (!(error instanceof DiskOpenError)) throw error;
    if (error.kind !== "missing") {
      return { name, outcome: "fail", detail: error.message, advice: "See above." };
    }
    if (sizeBytes === null || path.startsWith("/dev/")) {
      const advice = "Plug it in or mount it; a file needs a size to be made.";
      return { name, outcome: "fail", detail: "is not there", advice };
    }
    const can = await creatable(name, path);
    return can.outcome === "ok"
      ? await room(name, await nearestDirectory(path), sizeBytes, "made at the first start")
      : can;
  }
  try {
    const found = await inspectDisk(disk);
    if (found.kind === "foreign") {
      const advice = `Name another disk, or overwrite it: plimsoll disk init ${path} --wipe`;
      return { name, outcome: "fail", detail: `holds ${found.what}`, advice };
    }
    if (found.kind === "damaged") {
      return { name, outcome: "fail", detail: found.why, advice: `Look at it: plimsoll disk check ${path}` };
    }
    if (found.kind === "ours" && found.problem !== null) {
      const advice = "Restore it from a copy; what was behind the end is gone.";
      return { name, outcome: "fail", detail: found.problem, advice };
    }
    const info = await stat(path);
    const what = found.kind === "blank"
      ? "blank, formatted at the next start"
      : `disk ${found.identity.diskId}`;
    if (!info.isFile()) return { name, outcome: "ok", detail: `${what}, ${formatBytes(disk.sizeBytes)}` };
    return await room(name, path, disk.sizeBytes - info.blocks * 512, what);
  } finally {
    await disk.close();
  }
}

/** A disk that a running member serves. Of this machine's, the file system is looked at, too. */
export async function checkServedDisk(disk: DiskReport, here: boolean): Promise<Check> {
  const check = checkDiskReport(disk);
  const info = here && check.outcome === "ok" ? await stat(disk.path).catch(() => null) : null;
  if (!info?.isFile()) return check;
  return await room(check.name, disk.path, disk.sizeBytes - info.blocks * 512, check.detail);
}

function checkDiskReport(disk: DiskReport): Check {
  const name = `disk ${disk.path}`;
  const detail = `${disk.state}, ${formatBytes(disk.allocatedBytes)} of ${
    formatBytes(disk.usableBytes)
  } in use`;
  if (disk.state !== "online") {
    const advice =
      "Look at the machine's log (dmesg), then restart the member; plimsoll disk check tells more.";
    return { name, outcome: "fail", detail: `${detail}: ${disk.reason ?? "reason unknown"}`, advice };
  }
  if (disk.allocatedBytes < 0.8 * disk.usableBytes) return { name, outcome: "ok", detail };
  return { name, outcome: "warn", detail, advice: "Add a disk, or trim or delete what is not needed." };
}

/** A sparse file can only grow as far as its file system has room. */
async function room(name: string, path: string, growthBytes: number, what: string): Promise<Check> {
  const fs = await statfs(path).catch(() => null);
  if (fs === null) return { name, outcome: "ok", detail: what };
  const freeBytes = fs.bavail * fs.bsize;
  const detail = `${what}; may grow by ${formatBytes(Math.max(0, growthBytes))}, free are ${
    formatBytes(freeBytes)
  }`;
  if (freeBytes >= growthBytes) return { name, outcome: "ok", detail };
  const advice = "Make room on the file system: when it is full, writes to volumes fail.";
  return { name, outcome: "warn", detail, advice };
}

/** For what a start makes: the nearest directory that is there must let it. */
async function creatable(name: string, path: string): Promise<Check> {
  const directory = await nearestDirectory(path);
  if (await writable(directory)) return { name, outcome: "ok", detail: `${path} is made at the first start` };
  return notWritable(name, directory);
}

function notWritable(name: string, directory?: string): Check {
  const detail = directory === undefined
    ? "cannot be written"
    : `cannot be seen or made: no permission in ${directory}`;
  return {
    name,
    outcome: "fail",
    detail,
    advice: "Run as the member's user, or give that user the permission.",
  };
}

function writable(path: string): Promise<boolean> {
  return access(path, constants.W_OK).then(() => true, () => false);
}

/** The directory of `path`, or the nearest one above it that is there. */
async function nearestDirectory(path: string): Promise<string> {
  let directory = directoryOf(path);
  while (directory !== "/" && directory !== "." && await stat(directory).catch(() => null) === null) {
    directory = directoryOf(directory);
  }
  return directory;
}

function directoryOf(path: string): string {
  const slash = path.lastIndexOf("/");
  return slash < 0 ? "." : path.slice(0, slash) || "/";
}
