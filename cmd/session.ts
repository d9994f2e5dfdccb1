// plimsoll session: who is logged in, and who is to go elsewhere.

import type { Command } from "commander";
import { addGroupOptions, type GroupOptions, openGroup } from "./group_options.ts";
import { withExamples } from "./help.ts";
import { formatBytes, formatCount, table } from "./quantity.ts";
import { printable } from "./status_picture.ts";
import { printJson, type Terminal, usageError } from "./terminal.ts";

export function registerSession(program: Command, terminal: Terminal): void {
  const session = program.command("session").description("list sessions of initiators, move them");
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
        formatCount(Math.round(s.commandsPerS)),
        `${formatBytes(s.bytesPerS)}/s`,
        servedAt(s.servedAt),
      ]);
      const head = [
        "ID",
        "VOLUME",
        "INITIATOR",
        "FROM",
        "AT",
        "COMMANDS",
        "DATA",
        "NOW/S",
        "DATA NOW",
        "SERVED AT",
      ];
      terminal.out(table([head, ...rows], [true, false, false, false, false, true, true, true, true, false]));
    });
  const move = addGroupOptions(session.command("move <id>"))
    .description("ask a session's initiator to go to another member; nothing of its I/O is lost")
    .requiredOption("--to <member>", "the member it is to be at")
    .option(
      "--live",
      "move the connection itself, unnoticed by the initiator; ask it only where that cannot be had",
    )
    .action(async (id: string, options: GroupOptions & { to: string; live?: boolean }) => {
      if (!/^[0-9]{1,15}$/.test(id)) {
        throw usageError(`"${id}" is no session. "plimsoll session list" shows their numbers.`);
      }
      const report = await (await openGroup(options)).moveSession(
        Number(id),
        options.to,
        options.live === true,
      );
      if (options.json) return printJson(terminal, { session: Number(id), to: options.to, ...report });
      const to = printable(options.to);
      if (report.how === "live") {
        return terminal.out(
          `Session ${id} is at ${to} with its connection; it stood still for ${report.pauseMs} ms.\n`,
        );
      }
      const because = report.because === null
        ? ""
        : ` Its connection could not move along: ${printable(report.because)}.`;
      terminal.out(`Session ${id} is asked to go to ${to}.${because}\n`);
    });
  withExamples(move, ["plimsoll session move 7 --to beta", "plimsoll session move 7 --to beta --live"]);
  withExamples(command, ["plimsoll session list", "plimsoll session list --json | jq -r '.[].initiator'"]);
  withExamples(session, ["plimsoll session list"]);
}

/** "beta 67 %, alpha 33 %": where its commands were carried out. */
function servedAt(shares: Readonly<Record<string, number>>): string {
  return Object.entries(shares).toSorted((a, b) => b[1] - a[1]).slice(0, 3)
    .map(([member, share]) => `${printable(member)} ${Math.round(share * 100)} %`).join(", ");
}
