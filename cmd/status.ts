// plimsoll status: how the group is, in one look.

import type { Command } from "commander";
import { addGroupOptions, type GroupOptions, openGroup } from "./group_options.ts";
import { withExamples } from "./help.ts";
import { statusPicture } from "./status_picture.ts";
import { printJson, type Terminal } from "./terminal.ts";

export function registerStatus(program: Command, terminal: Terminal): void {
  const command = addGroupOptions(program.command("status"))
    .description("show members, portals, volumes and disks")
    .action(async (options: GroupOptions) => {
      const group = await openGroup(options);
      const status = await group.status();
      if (options.json) printJson(terminal, status);
      else terminal.out(statusPicture(status, terminal));
    });
  withExamples(command, ["plimsoll status", "plimsoll status --json | jq .notices", "watch plimsoll status"]);
}
