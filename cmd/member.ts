// plimsoll member: who is in the group, and who of them lives.

import type { Command } from "commander";
import type { MemberReport } from "../lib/mgmt/control.ts";
import { addGroupOptions, type GroupOptions, openGroup } from "./group_options.ts";
import { withExamples } from "./help.ts";
import { formatDuration, table } from "./quantity.ts";
import { printable } from "./status_picture.ts";
import { printJson, type Terminal } from "./terminal.ts";

export function registerMember(program: Command, terminal: Terminal): void {
  const member = program.command("member").description("list the members of the group");
  const command = addGroupOptions(member.command("list"))
    .description("list the members: their state, where they are, how long their lease lasts")
    .action(async (options: GroupOptions) => {
      const members = await (await openGroup(options)).members();
      if (options.json) return printJson(terminal, members);
      const head = ["NAME", "STATE", "PEER", "PORTALS", "HOST", "PROCESS", "UP FOR", "LEASE", "VERSION"];
      terminal.out(table([head, ...members.map((m) => row(m, Date.now()))]));
    });
  withExamples(command, [
    "plimsoll member list",
    `plimsoll member list --json | jq -r '.[] | select(.state == "down").name'`,
  ]);
  withExamples(member, ["plimsoll member list"]);
}

function row(member: MemberReport, nowMs: number): string[] {
  const { name, state, peer, portals, host, pid, sinceMs, leaseLeftMs, program } = member;
  return [
    name,
    state,
    peer ?? "-",
    portals.join(" ") || "-",
    printable(host ?? "-"),
    pid === null ? "-" : String(pid),
    sinceMs === null ? "-" : formatDuration(Math.max(0, nowMs - sinceMs)),
    leaseLeftMs === null ? "-" : `${(leaseLeftMs / 1000).toFixed(1)} s`,
    printable(program ?? "-"),
  ];
}
