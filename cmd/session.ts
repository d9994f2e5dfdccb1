// plimsoll session: who is logged in.

import type { Command } from "commander";
import { addGroupOptions, type GroupOptions, openGroup } from "./group_options.ts";
import { withExamples } from "./help.ts";
import { formatBytes, formatCount, table } from "./quantity.ts";
import { printable } from "./status_picture.ts";
import { printJson, type Terminal } from "./terminal.ts";

export function registerSession(program: Command, terminal: Terminal): void {
  const session = program.command("session").description("list sessions of initiators");
  const command = addGroupOptions(session.command("list"))
    .description("list the sessions; counters run since login")
    .action(async (options: GroupOptions) => {
      const sessions = await (await openGroup(options)).sessions();
      if (options.json) return printJson(terminal, sessions);
      if (sessions.length === 0) return terminal.err("Nobody is logged in.\n");
      const rows = sessions.map((s) => [
        String(s.id),
        s.volume,
        printable(s.initiator),
        s.remote,
        `${s.member} ${s.portal}`,
        formatCount(s.commands),
        formatBytes(s.bytes),
      ]);
      const head = ["ID", "VOLUME", "INITIATOR", "FROM", "AT", "COMMANDS", "DATA"];
      terminal.out(table([head, ...rows], [true, false, false, false, false, true, true]));
    });
  withExamples(command, ["plimsoll session list", "plimsoll session list --json | jq -r '.[].initiator'"]);
  withExamples(session, ["plimsoll session list"]);
}
