// plimsoll attach: paste-ready steps that attach a volume.

import { type Command, Option } from "commander";
import {
  attachGuide,
  type AttachTarget,
  type InitiatorKind,
  initiatorKinds,
  renderGuide,
} from "../lib/mgmt/attach.ts";
import type { StatusReport, VolumeReport } from "../lib/mgmt/control.ts";
import { addGroupOptions, type GroupOptions, openGroup } from "./group_options.ts";
import { withExamples } from "./help.ts";
import { CommandError, printJson, type Terminal } from "./terminal.ts";

export function registerAttach(program: Command, terminal: Terminal): void {
  const command = addGroupOptions(program.command("attach <volume>"))
    .description("print the steps that attach a volume, ready to paste")
    .addOption(
      new Option("--for <initiator>", "kind of initiator").choices(initiatorKinds).makeOptionMandatory(),
    )
    .action(async (name: string, options: GroupOptions & { for: InitiatorKind }) => {
      const group = await openGroup(options);
      const [volume, status] = [await group.volume(name), await group.status()];
      const guide = attachGuide(attachTarget(volume, status), options.for);
      if (options.json) printJson(terminal, guide);
      else terminal.out(renderGuide(guide));
    });
  withExamples(command, [
    "plimsoll attach vol0 --for linux",
    "plimsoll attach vol0 --for windows > attach.ps1",
    "plimsoll attach vol0 --for qemu --json | jq -r '.steps[].commands[]'",
  ]);
}

/** The group's address alone, or the portals that listen first, and of these the ones that other machines can reach. */
function attachTarget(volume: VolumeReport, status: StatusReport): AttachTarget {
  const rank = (p: { address: string; state: string }) =>
    (p.state === "listening" ? 0 : 2) + (/^(127\.|\[::1\])/.test(p.address) ? 1 : 0);
  const own = status.members.flatMap((m) => m.portals)
    .toSorted((a, b) => rank(a) - rank(b))
    .map((p) => p.address);
  const portals = status.groupAddress === undefined ? own : [status.groupAddress.address];
  if (portals.length === 0) {
    throw new CommandError(
      `Cannot attach volume "${volume.name}": the group has no portal. Set [member] portals.`,
    );
  }
  const { iqn, chapUser, mutualUser, initiators, writeCache, blockBytes, identifier } = volume;
  return {
    volume: volume.name,
    iqn,
    portals,
    chapUser,
    mutualUser,
    initiators,
    writeCache,
    blockBytes,
    identifier,
  };
}
