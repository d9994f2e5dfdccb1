// plimsoll member: who is in the group, and who of them lives.

import type { Command } from "commander";
import type { MemberReport } from "../lib/mgmt/control.ts";
import { addGroupOptions, type GroupOptions, openGroup } from "./group_options.ts";
import { withExamples } from "./help.ts";
import { formatDuration, table } from "./quantity.ts";
import { printable } from "./status_picture.ts";
import { printJson, type Terminal } from "./terminal.ts";

export function registerMember(program: Command, terminal: Terminal): void {
  const member = program.command("member").description(
    "list the members of the group, empty one, take one out",
  );
  const command = addGroupOptions(member.command("list"))
    .description("list the members: their state, where they are, how long their lease lasts")
    .action(async (options: GroupOptions) => {
      const members = await (await openGroup(options)).members();
      if (options.json) return printJson(terminal, members);
      const head = [
        "NAME",
        "STATE",
        "PEER",
        "PORTALS",
        "HOST",
        "PROCESS",
        "UP FOR",
        "LEASE",
        "VERSION",
        "DRAIN",
      ];
      terminal.out(table([head, ...members.map((m) => row(m, Date.now()))]));
    });
  withExamples(command, [
    "plimsoll member list",
    `plimsoll member list --json | jq -r '.[] | select(.state == "down").name'`,
  ]);
  registerDrain(member, terminal);
  registerRemove(member, terminal);
  withExamples(member, ["plimsoll member list", "plimsoll member drain beta"]);
}

function registerDrain(member: Command, terminal: Terminal): void {
  const command = addGroupOptions(member.command("drain <name>"))
    .description("send all clients and pages away from a member, and give it no new ones")
    .option("--cancel", "let it have clients and pages again; what has moved stays where it is")
    .action(async (name: string, options: GroupOptions & { cancel?: boolean }) => {
      const on = options.cancel !== true;
      await (await openGroup(options)).drainMember(name, on);
      if (options.json) return printJson(terminal, { member: name, draining: on });
      terminal.out(
        on
          ? `Member "${name}" is being drained. Watch it with: plimsoll member list\n`
          : `Member "${name}" is no longer drained.\n`,
      );
    });
  withExamples(command, ["plimsoll member drain beta", "plimsoll member drain beta --cancel"]);
}

function registerRemove(member: Command, terminal: Terminal): void {
  const command = addGroupOptions(member.command("remove <name>"))
    .description("take a member that is drained and stopped out of the group")
    .action(async (name: string, options: GroupOptions) => {
      await (await openGroup(options)).removeMember(name);
      if (options.json) return printJson(terminal, { member: name, removed: true });
      terminal.out(`Member "${name}" is no longer in the group.\n`);
    });
  withExamples(command, ["plimsoll member remove beta"]);
}

function row(member: MemberReport, nowMs: number): string[] {
  const { name, state, peer, host, pid, sinceMs, leaseLeftMs, program } = member;
  return [
    name,
    state,
    peer ?? "-",
    portalsText(member),
    printable(host ?? "-"),
    pid === null ? "-" : String(pid),
    sinceMs === null ? "-" : formatDuration(Math.max(0, nowMs - sinceMs)),
    leaseLeftMs === null ? "-" : `${(leaseLeftMs / 1000).toFixed(1)} s`,
    printable(program ?? "-"),
    drainText(member.drain),
  ];
}

/** "10.0.0.11:3260 10.0.0.100:3260 (group)" */
function portalsText({ portals, groupAddress }: MemberReport): string {
  const group = groupAddress === undefined ? [] : [`${groupAddress} (group)`];
  return [...portals, ...group].join(" ") || "-";
}

/** "12 pages left, 40 s" */
function drainText(drain: MemberReport["drain"]): string {
  if (drain === null) return "-";
  if (drain.pagesLeft === 0) return "empty";
  const time = drain.leftMs === null ? "" : `, ${formatDuration(drain.leftMs)}`;
  return `${drain.pagesLeft} pages left${time}`;
}
