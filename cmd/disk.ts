// plimsoll disk: list, init, check. init and check work on a disk that nobody serves.

import type { Command } from "commander";
import type { Disk } from "../lib/base/disk.ts";
import { DiskOpenError, type FileDisk, openFileDisk } from "../lib/io/file_disk.ts";
import { AdminError } from "../lib/mgmt/http_client.ts";
import {
  type CheckReport,
  checkStore,
  DiskError,
  inspectDisk,
  type Inspection,
  StoreOpenError,
} from "../lib/store/mod.ts";
import { readConfigFile } from "./config_file.ts";
import { wipeDisk } from "./disk_wipe.ts";
import { addGroupOptions, configDefault, type GroupOptions, openGroup } from "./group_options.ts";
import { withExamples } from "./help.ts";
import { formatBytes, formatCount, plural, table } from "./quantity.ts";
import { printable } from "./status_picture.ts";
import { CommandError, printJson, type Terminal } from "./terminal.ts";

export function registerDisk(program: Command, terminal: Terminal, result: { exitCode: number }): void {
  const disk = program.command("disk").description("list disks; make one blank, or check one, offline");
  registerList(disk, terminal);
  registerInit(disk, terminal);
  registerCheck(disk, terminal, result);
  withExamples(disk, ["plimsoll disk list", "plimsoll disk check var/alpha/disk0.img"]);
}

function registerList(disk: Command, terminal: Terminal): void {
  const command = addGroupOptions(disk.command("list"))
    .description("list the disks of the member; when it does not run, look at those of the configuration")
    .action(async (options: GroupOptions) => {
      try {
        const { disks } = await (await openGroup(options)).status();
        if (options.json) return printJson(terminal, disks);
        const rows = disks.map((d) => [
          printable(d.path),
          d.member,
          formatBytes(d.usableBytes),
          formatBytes(d.allocatedBytes),
          d.reason === undefined ? d.state : `${d.state}: ${printable(d.reason)}`,
          d.id,
        ]);
        const head = ["PATH", "MEMBER", "USABLE", "IN USE", "STATE", "ID"];
        terminal.out(table([head, ...rows], [false, false, true, true]));
      } catch (error) {
        if (!(error instanceof AdminError) || error.kind !== "unreachable" || options.api !== undefined) {
          throw error;
        }
        await listOffline(options, terminal);
      }
    });
  withExamples(command, ["plimsoll disk list", "plimsoll disk list --json"]);
}

async function listOffline(options: GroupOptions, terminal: Terminal): Promise<void> {
  const config = await readConfigFile(options.config ?? configDefault);
  const rows = [];
  for (const { path } of config.role === "member" ? config.disks : []) {
    rows.push({ path, served: false, ...await look(path) });
  }
  if (options.json) return printJson(terminal, rows);
  terminal.err("The member does not run, so this is what lies on the disks of the configuration.\n");
  const head = ["PATH", "SIZE", "HOLDS"];
  const size = (bytes: number | null) => bytes === null ? "-" : formatBytes(bytes);
  terminal.out(table([head, ...rows.map((r) => [printable(r.path), size(r.sizeBytes), r.holds])]));
}

async function look(path: string): Promise<{ sizeBytes: number | null; holds: string; id?: string }> {
  let disk: FileDisk;
  try {
    disk = openFileDisk(path, { readOnly: true });
  } catch (error) {
    if (!(error instanceof DiskOpenError)) throw error;
    return { sizeBytes: null, holds: error.kind === "missing" ? "nothing: it is not there" : error.message };
  }
  try {
    const found = await inspectDisk(disk);
    const { sizeBytes } = disk;
    return found.kind === "ours"
      ? { sizeBytes, holds: holds(found), id: found.identity.diskId }
      : { sizeBytes, holds: holds(found) };
  } finally {
    await disk.close();
  }
}

function holds(found: Inspection): string {
  switch (found.kind) {
    case "blank":
      return "nothing: blank";
    case "ours":
      return `disk ${found.identity.diskId} of group ${found.identity.groupId}, ` +
        `${plural(found.slots, "slot")} of ${formatBytes(found.pageBytes)}` +
        (found.problem === null ? "" : `; ${found.problem}`);
    case "foreign":
      return found.what;
    case "damaged":
      return `a Plimsoll store that is damaged: ${found.why}`;
  }
}

function registerInit(disk: Command, terminal: Terminal): void {
  const command = disk.command("init <path>")
    .description("make a disk blank, so that the next start of the member takes it")
    .option("--wipe", "overwrite what is on it, for good")
    .option("--json", "print JSON")
    .action(async (path: string, options: { wipe?: boolean; json?: boolean }) => {
      await withDisk(path, async (opened) => {
        if (opened.sizeBytes === 0) {
          throw new CommandError(
            `Cannot use disk "${path}": it has 0 bytes. Remove it: a start makes a file of the size in the configuration.`,
          );
        }
        const found = await inspectDisk(opened);
        if (found.kind !== "blank" && !options.wipe) {
          throw new CommandError(
            `Will not make disk "${path}" blank: it holds ${holds(found)}. ` +
              `If that may be lost, add --wipe; otherwise name another disk.`,
          );
        }
        if (found.kind !== "blank") await wipeDisk(opened);
        const wiped = found.kind !== "blank";
        if (options.json) {
          return printJson(terminal, { path, sizeBytes: opened.sizeBytes, held: found.kind, wiped });
        }
        terminal.out(
          `Disk ${path} is blank${wiped ? " now" : " already"} (${formatBytes(opened.sizeBytes)}).\n`,
        );
        terminal.out(`List it under [[disk]] in the configuration; the next start formats it.\n`);
      });
    });
  withExamples(command, [
    "plimsoll disk init /dev/disk/by-id/nvme-example",
    "plimsoll disk init /dev/disk/by-id/nvme-example --wipe",
  ]);
}

function registerCheck(disk: Command, terminal: Terminal, result: { exitCode: number }): void {
  const command = disk.command("check <path>")
    .description("verify the store on a disk that nobody serves")
    .option("--repair", "mend what can be mended without guessing")
    .option("--data", "read every page as well, to see whether it can be read")
    .option("--json", "print JSON")
    .action(async (path: string, options: { repair?: boolean; data?: boolean; json?: boolean }) => {
      const report = await withDisk(path, (opened) => {
        const progress = progressLine(terminal, `checking ${path}`);
        const check = checkStore(opened, {
          repair: options.repair === true,
          readData: options.data === true,
          progress: progress.at,
        });
        return check.finally(progress.end);
      });
      result.exitCode = report.ok ? 0 : 1;
      if (options.json) printJson(terminal, report);
      else tell(path, report, options.repair === true, terminal);
    });
  withExamples(command, [
    "plimsoll disk check var/alpha/disk0.img",
    "plimsoll disk check /dev/disk/by-id/nvme-example --data",
    "plimsoll disk check var/alpha/disk0.img --repair",
  ], {
    0: "the disk is clean (or was made so)",
    1: "failed, or something is wrong with the disk",
    2: "wrong usage",
  });
}

function tell(path: string, report: CheckReport, repair: boolean, terminal: Terminal): void {
  terminal.out(
    `${path}: disk ${report.identity.diskId}, ${formatCount(report.allocatedSlots)} of ` +
      `${plural(report.slots, "slot")} of ${formatBytes(report.pageBytes)} in use, ` +
      `${formatCount(report.damagedSlots)} damaged, ${plural(report.images.length, "image")}\n`,
  );
  for (const { severity, text, repaired } of report.findings) {
    terminal.out(`  ${severity.padEnd(5)}  ${text}${repaired ? " (repaired)" : ""}\n`);
  }
  if (report.ok) return terminal.out("clean\n");
  const repairable = report.findings.some((f) => f.severity === "fault" && !f.repaired) && !repair;
  terminal.err(
    repairable
      ? `plimsoll: Disk "${path}" has faults. Run it again with --repair.\n`
      : `plimsoll: Disk "${path}" has lost pages: they answer MEDIUM ERROR until they are written anew. Restore them from a copy.\n`,
  );
}

/** Opens the disk alone, so that nobody serves it meanwhile. */
async function withDisk<T>(path: string, use: (disk: Disk) => Promise<T>): Promise<T> {
  let disk: FileDisk | null = null;
  try {
    disk = openFileDisk(path);
    return await use(disk);
  } catch (error) {
    if (error instanceof DiskOpenError || error instanceof DiskError || error instanceof StoreOpenError) {
      throw new CommandError(error.message);
    }
    throw error;
  } finally {
    await disk?.close();
  }
}

/** A line on stderr that counts up, where a person looks at it. */
function progressLine(terminal: Terminal, what: string) {
  let shown = -1;
  return {
    at(done: number, all: number): void {
      const percent = Math.floor(done / all * 100);
      if (!terminal.errIsTty || percent === shown) return;
      shown = percent;
      terminal.err(`\r${what}: ${formatCount(done)} of ${plural(all, "slot")} (${percent} %)\x1b[K`);
    },
    end(): void {
      if (shown >= 0) terminal.err("\r\x1b[K");
    },
  };
}
