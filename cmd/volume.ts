// plimsoll volume: create, list, show, set, resize, delete.

import { type Command, Option } from "commander";
import type { VolumeChange, VolumeCreation, VolumeReport } from "../lib/mgmt/control.ts";
import { type VolumeClass, volumeClasses } from "../lib/meta/records.ts";
import { type AdminClient, AdminError } from "../lib/mgmt/http_client.ts";
import { addGroupOptions, type GroupOptions, openGroup } from "./group_options.ts";
import { withExamples } from "./help.ts";
import { formatBytes, formatCount, plural, table } from "./quantity.ts";
import { readChapSecret } from "./secret_file.ts";
import { parseSize } from "./size.ts";
import { printable } from "./status_picture.ts";
import { CommandError, printJson, type Terminal, usageError } from "./terminal.ts";

interface AccessOptions {
  readonly initiators?: string[] | false;
  readonly chap?: boolean;
  readonly mutual?: boolean;
  readonly chapUser?: string;
  readonly chapSecretFile?: string;
  readonly mutualUser?: string;
  readonly mutualSecretFile?: string;
  readonly writeCache?: "on" | "off";
  readonly writeProtect?: "on" | "off";
  readonly class?: VolumeClass;
}

interface CreateOptions extends GroupOptions, AccessOptions {
  readonly size: number;
  readonly blockSize?: "512" | "4096";
  readonly members?: string[];
}

interface SetOptions extends GroupOptions, AccessOptions {
  readonly size?: number;
}

export function registerVolume(program: Command, terminal: Terminal): void {
  const volume = program.command("volume").description("create, list, show, set, resize, delete volumes");
  registerCreate(volume, terminal);
  registerList(volume, terminal);
  registerShow(volume, terminal);
  registerSet(volume, terminal);
  registerResize(volume, terminal);
  registerDelete(volume, terminal);
  withExamples(volume, [
    "plimsoll volume list",
    "plimsoll volume create vol1 --size 10GiB --initiators 'iqn.2026-01.*'",
  ]);
}

function registerCreate(volume: Command, terminal: Terminal): void {
  const command = addGroupOptions(volume.command("create <name>"))
    .description("make a volume; it takes room as it is written")
    .requiredOption("--size <size>", "its size: 10GiB, 512MiB, or bytes", parseSize)
    .addOption(
      new Option("--block-size <bytes>", "logical block size, for good (default: 512)").choices([
        "512",
        "4096",
      ]),
    )
    .option("--members <names>", "members that hold its pages, comma between (default: all)", names);
  addAccessOptions(command).action(async (name: string, options: CreateOptions) => {
    const creation: VolumeCreation = {
      name,
      sizeBytes: options.size,
      ...(options.blockSize === undefined ? {} : { blockBytes: Number(options.blockSize) as 512 | 4096 }),
      ...(options.members === undefined ? {} : { members: options.members }),
      ...await changeOf(options),
    };
    const made = await (await openGroup(options)).createVolume(creation);
    if (options.json) return printJson(terminal, made);
    terminal.out(`Made volume ${made.name}: ${formatBytes(made.sizeBytes)}, ${made.iqn}\n`);
    terminal.out(`Attach it: plimsoll attach ${made.name} --for linux\n`);
  });
  withExamples(command, [
    "plimsoll volume create vol1 --size 10GiB --initiators 'iqn.2026-01.com.example:*'",
    "plimsoll volume create vol2 --size 1TiB --block-size 4096 --chap-user host1 --chap-secret-file host1.chap",
    "plimsoll volume create esx --size 2TiB --write-cache off --initiators 'iqn.1998-01.com.vmware:*'",
  ]);
}

function registerList(volume: Command, terminal: Terminal): void {
  const command = addGroupOptions(volume.command("list"))
    .description("list the volumes")
    .action(async (options: GroupOptions) => {
      const volumes = await (await openGroup(options)).volumes();
      if (options.json) return printJson(terminal, volumes);
      if (volumes.length === 0) {
        return terminal.err("There is no volume yet. Make one: plimsoll volume create NAME --size 10GiB\n");
      }
      const rows = volumes.map((v) => [
        v.name,
        formatBytes(v.sizeBytes),
        formatBytes(v.allocatedBytes),
        v.state,
        v.volumeClass ?? "-",
        String(v.sessions),
        v.iqn,
      ]);
      terminal.out(
        table([["NAME", "SIZE", "IN USE", "STATE", "CLASS", "SESSIONS", "IQN"], ...rows], [
          false,
          true,
          true,
          false,
          false,
          true,
        ]),
      );
    });
  withExamples(command, ["plimsoll volume list", "plimsoll volume list --json | jq -r '.[].iqn'"]);
}

function registerShow(volume: Command, terminal: Terminal): void {
  const command = addGroupOptions(volume.command("show <name>"))
    .description("show everything about one volume")
    .action(async (name: string, options: GroupOptions) => {
      const report = await (await openGroup(options)).volume(name);
      if (options.json) printJson(terminal, report);
      else terminal.out(table(details(report)));
    });
  withExamples(command, ["plimsoll volume show vol0", "plimsoll volume show vol0 --json"]);
}

function details(v: VolumeReport): string[][] {
  const access = v.initiators === null
    ? (v.chapUser === null ? "not set: served on loopback portals only" : "any that knows the CHAP secret")
    : v.initiators.length === 0
    ? "none"
    : v.initiators.join(", ");
  return [
    ["name", v.name],
    ["iqn", v.iqn],
    ["size", `${formatBytes(v.sizeBytes)} (${formatCount(v.sizeBytes)} bytes)`],
    ["in use", formatBytes(v.allocatedBytes)],
    ["block size", `${v.blockBytes} B`],
    ["page size", formatBytes(v.pageBytes)],
    ["state", v.state],
    ["sessions", String(v.sessions)],
    ["initiators", printable(access)],
    ["CHAP user", printable(v.chapUser ?? "none")],
    ["mutual CHAP user", printable(v.mutualUser ?? "none")],
    ["write cache", v.writeCache ? "on" : "off"],
    ["write protected", v.writeProtected ? "yes" : "no"],
    ["class", v.volumeClass ?? "-"],
    ["identifier", v.identifier],
    ["epoch", String(v.epoch)],
  ];
}

function registerSet(volume: Command, terminal: Terminal): void {
  const command = addGroupOptions(volume.command("set <name>"))
    .description("change who may use a volume, its write cache, its write protection, its class or its size")
    .option("--size <size>", "grow it, like volume resize", parseSize);
  addAccessOptions(command)
    .option("--no-initiators", "forget the initiator patterns")
    .option("--no-chap", "ask for no CHAP any more")
    .option("--no-mutual", "prove nothing to initiators any more")
    .action(async (name: string, options: SetOptions) => {
      const change = await changeOf(options);
      if (Object.keys(change).length === 0 && options.size === undefined) {
        throw usageError(
          `Nothing to set for volume "${name}". "plimsoll volume set --help" lists what can be.`,
        );
      }
      const group = await openGroup(options);
      let report: VolumeReport | null = null;
      if (Object.keys(change).length > 0) report = await group.setVolume(name, change);
      if (options.size !== undefined) report = await grow(group, name, options.size, report !== null);
      if (options.json) printJson(terminal, report);
      else terminal.out(`Changed volume ${name}.\n`);
    });
  withExamples(command, [
    "plimsoll volume set vol0 --initiators 'iqn.2026-01.com.example:*,iqn.1993-08.org.debian:01:*'",
    "plimsoll volume set vol0 --chap-user host1 --chap-secret-file host1.chap",
    "plimsoll volume set vol0 --no-chap",
    "plimsoll volume set vol0 --write-protect on",
    "plimsoll volume set vol0 --class fixed",
  ]);
}

/** A volume is changed and grown by two requests, so the second can fail alone. */
async function grow(
  group: AdminClient,
  name: string,
  sizeBytes: number,
  changed: boolean,
): Promise<VolumeReport> {
  try {
    return await group.resizeVolume(name, sizeBytes);
  } catch (error) {
    if (!changed || !(error instanceof AdminError)) throw error;
    throw new CommandError(`${error.message} (The other changes to volume "${name}" were made.)`);
  }
}

function registerResize(volume: Command, terminal: Terminal): void {
  const command = addGroupOptions(volume.command("resize <name> <size>"))
    .description("grow a volume; initiators that are logged in are told")
    .action(async (name: string, size: string, options: GroupOptions) => {
      const sizeBytes = parseSize(size);
      const report = await (await openGroup(options)).resizeVolume(name, sizeBytes);
      if (options.json) return printJson(terminal, report);
      terminal.out(`Volume ${name} has ${formatBytes(report.sizeBytes)} now.\n`);
    });
  withExamples(command, ["plimsoll volume resize vol0 8GiB"]);
}

function registerDelete(volume: Command, terminal: Terminal): void {
  const command = addGroupOptions(volume.command("delete <name>"))
    .description("delete a volume with all its data, for good")
    .option("-y, --yes", "do not ask")
    .action(async (name: string, options: GroupOptions & { yes?: boolean }) => {
      const group = await openGroup(options);
      if (!options.yes) confirmDelete(await group.volume(name), terminal);
      await group.deleteVolume(name);
      if (options.json) printJson(terminal, { deleted: name });
      else terminal.out(`Deleted volume ${name}.\n`);
    });
  withExamples(command, ["plimsoll volume delete vol1", "plimsoll volume delete vol1 --yes"]);
}

function confirmDelete(volume: VolumeReport, terminal: Terminal): void {
  if (!terminal.inIsTty || !terminal.errIsTty) {
    throw usageError(
      `Will not delete volume "${volume.name}" without being asked by a person: nobody sits at this terminal. Add --yes.`,
    );
  }
  terminal.err(
    `Volume ${volume.name} has ${formatBytes(volume.allocatedBytes)} of data and ` +
      `${plural(volume.sessions, "session")}. Deleting it cannot be undone.\n`,
  );
  if (terminal.ask("Type its name to delete it:")?.trim() !== volume.name) {
    throw new CommandError(`Volume "${volume.name}" was not deleted: its name was not typed.`);
  }
}

function addAccessOptions(command: Command): Command {
  const onOff = ["on", "off"];
  return command
    .option(
      "--initiators <patterns>",
      "initiator names that may use it, * for any part, comma between",
      names,
    )
    .option("--chap-user <user>", "user that initiators prove to be")
    .option("--chap-secret-file <file>", "file with that user's secret")
    .option("--mutual-user <user>", "user that the target proves to be (mutual CHAP)")
    .option("--mutual-secret-file <file>", "file with that user's secret")
    .addOption(new Option("--write-cache <state>", "off: every acknowledged write is durable").choices(onOff))
    .addOption(new Option("--write-protect <state>", "on: initiators can only read").choices(onOff))
    .addOption(
      new Option(
        "--class <class>",
        "when load is spread: local clings to where its pages lie, fixed keeps its clients where they are (default: normal)",
      ).choices(volumeClasses),
    );
}

async function changeOf(options: AccessOptions): Promise<VolumeChange> {
  const change: VolumeChange = {};
  if (options.initiators === false) change.initiators = null;
  else if (options.initiators !== undefined) change.initiators = options.initiators;
  const { chapUser, chapSecretFile, mutualUser, mutualSecretFile } = options;
  if (options.chap === false) change.chap = null;
  const chap = await identity("chap", chapUser, chapSecretFile);
  if (chap !== null) change.chap = chap;
  if (options.mutual === false) change.mutual = null;
  const mutual = await identity("mutual", mutualUser, mutualSecretFile);
  if (mutual !== null) change.mutual = mutual;
  if (options.writeCache !== undefined) change.writeCache = options.writeCache === "on";
  if (options.writeProtect !== undefined) change.writeProtected = options.writeProtect === "on";
  if (options.class !== undefined) change.volumeClass = options.class;
  return change;
}

async function identity(
  kind: "chap" | "mutual",
  user: string | undefined,
  file: string | undefined,
): Promise<{ user: string; secret: string } | null> {
  if (user === undefined && file === undefined) return null;
  if (user === undefined || file === undefined) {
    throw usageError(`--${kind}-user and --${kind}-secret-file go together; one of them is missing.`);
  }
  return { user, secret: await readChapSecret(file) };
}

function names(text: string): string[] {
  return text.split(",").map((name) => name.trim()).filter((name) => name !== "");
}
