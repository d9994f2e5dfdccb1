// plimsoll member: who is in the group, and who of them lives.

import type { Command } from "commander";
import type { MemberReport } from "../lib/mgmt/control.ts";
import { addGroupOptions, type GroupOptions, openGroup } from "./group_options.ts";
import { withExamples } from "./help.ts";
import { drainText, registerDrain } from "./member_drain.ts";
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
