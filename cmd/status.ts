// plimsoll status: how the group is, or a host agent's devices, in one look.

import type { Command } from "commander";
import { agentPicture } from "./agent_picture.ts";
import { addGroupOptions, type GroupOptions, openAny } from "./group_options.ts";
import { withExamples } from "./help.ts";
import { statusPicture } from "./status_picture.ts";
import { printJson, type Terminal } from "./terminal.ts";

export function registerStatus(program: Command, terminal: Terminal): void {
  const command = addGroupOptions(program.command("status"))
    .description("show members, portals, volumes and disks; of a host agent its devices")
    .action(async (options: GroupOptions) => {
      const status = await (await openAny(options)).anyStatus();
      if (options.json) printJson(terminal, status);
      else if ("role" in status) terminal.out(agentPicture(status, terminal));
      else terminal.out(statusPicture(status, terminal));
    });
  withExamples(command, [
    "plimsoll status",
    "plimsoll status --json | jq .notices",
    "watch plimsoll status",
    "plimsoll status --config agent.toml",
  ]);
}
