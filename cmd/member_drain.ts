// plimsoll member drain: everything away from a member, or its clients only, for a restart.

import type { Command } from "commander";
import type { MemberReport } from "../lib/mgmt/control.ts";
import type { DrainPurpose } from "../lib/meta/records.ts";
import type { AdminClient } from "../lib/mgmt/http_client.ts";
import { addGroupOptions, type GroupOptions, openGroup } from "./group_options.ts";
import { withExamples } from "./help.ts";
import { formatDuration, plural } from "./quantity.ts";
import { CommandError, printJson, type Terminal, usageError } from "./terminal.ts";

interface DrainOptions extends GroupOptions {
  readonly cancel?: boolean;
  readonly restart?: boolean;
  readonly wait?: boolean;
}

type Drain = NonNullable<MemberReport["drain"]>;

/** Between two looks at how far it is, milliseconds. */
const lookMs = 500;
/** The member that is asked knows of the drain after so many looks. */
const unseenLooksMax = 20;

export function registerDrain(member: Command, terminal: Terminal): void {
  const command = addGroupOptions(member.command("drain <name>"))
    .description(
      "send all clients and pages away from a member, and give it no new ones;\n" +
        "with --restart its clients only, with their connections, so that its process can be started anew",
    )
    .option("--restart", "its pages stay; ends when the process has been started anew")
    .option("--wait", "return when it is empty, or ready for the restart")
    .option("--cancel", "let it have clients and pages again; what has moved stays where it is")
    .action(async (name: string, options: DrainOptions) => {
      const { cancel = false, restart = false, wait = false } = options;
      if (cancel && (restart || wait)) {
        throw usageError("Give --cancel alone: it ends whatever drain there is.");
      }
      const group = await openGroup(options);
      const purpose = restart ? "restart" : "leave";
      await group.drainMember(name, cancel ? null : purpose);
      const drain = wait ? await drained(group, name, purpose, terminal) : null;
      if (options.json) return printJson(terminal, { member: name, draining: !cancel, drain });
      terminal.out(`${outcome(name, cancel, restart, drain)}\n`);
    });
  withExamples(command, [
    "plimsoll member drain beta",
    "plimsoll member drain beta --restart --wait && systemctl restart plimsoll",
    "plimsoll member drain beta --cancel",
  ]);
}

/** "12 pages left, 40 s"; "ready to restart, 1 client stays" */
export function drainText(drain: MemberReport["drain"]): string {
  if (drain === null) return "-";
  if (drain.purpose === "restart") {
    if (drain.ready === undefined) return "for a restart";
    return drain.ready.staying === 0 ? "ready to restart" : `ready to restart, ${stay(drain.ready.staying)}`;
  }
  if (drain.pagesLeft === 0) return "empty";
  const time = drain.leftMs === null ? "" : `, ${formatDuration(drain.leftMs)}`;
  return `${plural(drain.pagesLeft, "page")} left${time}`;
}

const stay = (count: number) => `${plural(count, "client")} ${count === 1 ? "stays" : "stay"}`;

function outcome(name: string, cancel: boolean, restart: boolean, drain: Drain | null): string {
  if (cancel) return `Member "${name}" is no longer drained.`;
  if (drain === null) {
    const what = restart ? "gives its clients away for a restart" : "is being drained";
    return `Member "${name}" ${what}. Watch it with: plimsoll member list`;
  }
  if (!restart) return `Member "${name}" is empty.`;
  const staying = drain.ready?.staying ?? 0;
  const rest = staying === 0
    ? ""
    : ` ${stay(staying)} (its log says why), to be asked to log out when it stops.`;
  return `Member "${name}" is ready: start its process anew.${rest}`;
}

/** Resolves when it is empty or ready; rejects when somebody ends the drain, or the member goes down before. */
async function drained(
  group: AdminClient,
  name: string,
  purpose: DrainPurpose,
  terminal: Terminal,
): Promise<Drain> {
  let shown = "";
  let seen = false;
  try {
    for (let looks = 0;; looks++) {
      const member = (await group.members()).find((m) => m.name === name);
      const drain = member?.drain ?? null;
      if (drain?.purpose === purpose && isOver(drain)) return drain;
      if (member?.state === "down") {
        throw new CommandError(`Member "${name}" went down while it was being drained.`);
      }
      seen ||= drain !== null;
      if (drain === null && (seen || looks === unseenLooksMax)) {
        throw new CommandError(`The drain of member "${name}" was ended by somebody else.`);
      }
      const text = `${name}: ${drain === null ? "beginning" : drainText(drain)}`;
      if (terminal.errIsTty && text !== shown) terminal.err(`\r${text}\x1b[K`);
      shown = text;
      await new Promise((resolve) => setTimeout(resolve, lookMs));
    }
  } finally {
    if (terminal.errIsTty && shown !== "") terminal.err("\r\x1b[K");
  }
}

function isOver(drain: Drain): boolean {
  return drain.purpose === "restart" ? drain.ready !== undefined : drain.pagesLeft === 0;
}
