// plimsoll route: which member holds which page of a volume.

import { type Command, Option } from "commander";
import type { RouteReport } from "../lib/mgmt/control.ts";
import { regionMappings, switchTable } from "../lib/route/dm_switch.ts";
import { addGroupOptions, type GroupOptions, openGroup } from "./group_options.ts";
import { withExamples } from "./help.ts";
import { formatBytes, plural, table } from "./quantity.ts";
import { printable } from "./status_picture.ts";
import { type Colour, paint, printJson, type Terminal } from "./terminal.ts";

export function registerRoute(program: Command, terminal: Terminal): void {
  const route = program.command("route").description("show where a volume's pages have their homes");
  const command = addGroupOptions(route.command("show <volume>"))
    .description("draw the volume's pages in order, by the member that is their home")
    .action(async (volume: string, options: GroupOptions) => {
      const report = await (await openGroup(options)).route(volume);
      if (options.json) return printJson(terminal, report);
      terminal.out(routePicture(report, terminal));
    });
  withExamples(command, [
    "plimsoll route show vol0",
    "plimsoll route show vol0 --json | jq .allocated",
  ]);
  registerExport(route, terminal);
  withExamples(route, ["plimsoll route show vol0"]);
}

interface ExportOptions extends GroupOptions {
  readonly format: string;
  readonly device: string;
}

function registerExport(route: Command, terminal: Terminal): void {
  const command = addGroupOptions(route.command("export <volume>"))
    .description("print the route table for another program: dmsetup's commands for Linux's dm-switch")
    .addOption(
      new Option("--format <format>", "language of the table").choices(["dm-switch"]).default("dm-switch"),
    )
    .option(
      "--device <pattern>",
      "block device of the whole volume at one member, MEMBER being its name",
      "/dev/mapper/VOLUME-MEMBER",
    )
    .action(async (volume: string, options: ExportOptions) => {
      const group = await openGroup(options);
      const [report, { sizeBytes }] = await Promise.all([group.route(volume), group.volume(volume)]);
      const exported = exportRoutes(report, sizeBytes, options.device);
      if (options.json) return printJson(terminal, exported);
      const { name, table, messages } = exported;
      terminal.out([
        `# Route table of epoch ${report.epoch}. The switch passes no flush on: each device below it must be write through`,
        "# (plimsoll volume set --write-cache off), and none may be one that multipathd merges with the others.",
        `dmsetup create ${name} --table "${table}"`,
        ...messages.map((message) => `dmsetup message ${name} 0 ${message}`),
        "",
      ].join("\n"));
    });
  withExamples(command, [
    "plimsoll route export vol0",
    "plimsoll route export vol0 --device /dev/disk/by-id/MEMBER-vol0 | sudo sh",
  ]);
}

export interface ExportedRoutes {
  /** Of the device to be made. */
  readonly name: string;
  readonly epoch: number;
  readonly members: readonly string[];
  readonly table: string;
  readonly messages: readonly string[];
}

export function exportRoutes(report: RouteReport, sizeBytes: number, pattern: string): ExportedRoutes {
  const members = [...new Set(report.runs.map(([home]) => home))].sort();
  const pages = report.runs.reduce((sum, [, count]) => sum + count, 0);
  const paths = new Uint8Array(pages);
  let page = 0;
  for (const [home, count] of report.runs) {
    paths.fill(members.indexOf(home), page, page + count);
    page += count;
  }
  const devices = members.map((member) =>
    pattern.replaceAll("VOLUME", report.volume).replaceAll("MEMBER", member)
  );
  return {
    name: report.volume,
    epoch: report.epoch,
    members,
    table: switchTable(sizeBytes, report.pageBytes, devices),
    messages: regionMappings(paths),
  };
}

const rowsMax = 16;
const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
const colours: readonly Colour[] = ["blue", "green", "yellow", "red"];
/** Runs written out; the picture shows the rest. */
const runsShownMax = 12;

/** For people: a letter for so many pages, in the colour of the member that is home to most of them. */
export function routePicture(report: RouteReport, terminal: Terminal): string {
  const pages = report.runs.reduce((sum, [, count]) => sum + count, 0);
  const members = Object.keys(report.allocated).sort();
  const columns = Math.min(64, Math.max(16, terminal.columns - 14));
  const perCell = Math.max(1, Math.ceil(pages / (columns * rowsMax)));
  const cells = cellsOf(report.runs, perCell);
  const out: string[] = [];
  const size = formatBytes(report.pageBytes);
  out.push(
    paint(terminal, "bold", `${printable(report.volume)}: ${pages} pages of ${size}, epoch ${report.epoch}`) +
      (perCell === 1 ? "" : `, ${perCell} pages a letter`),
    "",
  );
  for (let at = 0; at < cells.length; at += columns) {
    const row = cells.slice(at, at + columns).map((member) => mark(terminal, members, member)).join("");
    out.push(`${String(at * perCell).padStart(10)}  ${row}`);
  }
  const homes = (member: string) =>
    report.runs.reduce((sum, [home, count]) => sum + (home === member ? count : 0), 0);
  out.push("");
  out.push(
    table([
      ["", "MEMBER", "PAGES", "SHARE", "WITH DATA"],
      ...members.map((member) => [
        letterOf(members, member),
        printable(member),
        String(homes(member)),
        `${Math.round(100 * homes(member) / Math.max(1, pages))} %`,
        String(report.allocated[member]),
      ]),
    ]).trimEnd(),
  );
  const longest = report.runs.reduce((most, [, count]) => Math.max(most, count), 0);
  const first = report.runs.slice(0, runsShownMax).map(([home, count]) => `${printable(home)} ${count}`);
  const rest = report.runs.length > runsShownMax ? ", …" : "";
  out.push(
    "",
    `${plural(report.runs.length, "run")}, the longest of ${plural(longest, "page")}: ${
      first.join(", ")
    }${rest}`,
    "",
  );
  return out.join("\n");
}

function letterOf(members: readonly string[], member: string): string {
  return letters[members.indexOf(member)] ?? "?";
}

function mark(terminal: Terminal, members: readonly string[], member: string): string {
  const index = members.indexOf(member);
  return paint(terminal, colours[index % colours.length] ?? "dim", letterOf(members, member));
}

/** For each cell of `perCell` pages the home of most of them. */
function cellsOf(runs: RouteReport["runs"], perCell: number): string[] {
  const out: string[] = [];
  let counts = new Map<string, number>();
  let filled = 0;
  const close = () => {
    out.push([...counts].reduce((a, b) => (b[1] > a[1] ? b : a))[0]);
    counts = new Map();
    filled = 0;
  };
  for (const [home, count] of runs) {
    for (let left = count; left > 0;) {
      const taken = Math.min(left, perCell - filled);
      counts.set(home, (counts.get(home) ?? 0) + taken);
      filled += taken;
      left -= taken;
      if (filled === perCell) close();
    }
  }
  if (filled > 0) close();
  return out;
}
