// The overview that `plimsoll status` draws: usage as bars, states as colours and as words.

import type { DiskReport, ProxiedVolume, StatusReport, VolumeReport } from "../lib/mgmt/control.ts";
import { formatBytes, formatCount, formatDuration, plural } from "./quantity.ts";
import { type Colour, paint, type Terminal } from "./terminal.ts";

const barCells = 20;
/** From this share on a bar is a warning: the load line. */
const nearFull = 0.8;
const almostFull = 0.95;

export function statusPicture(status: StatusReport, terminal: Terminal): string {
  const lines = [
    heading(status, terminal),
    ...addressOf(status, terminal),
    "",
    ...members(status, terminal),
    "",
    ...volumes(status.volumes, terminal),
    ...(status.proxied === undefined
      ? ["", ...disks(status.disks, terminal)]
      : status.proxied.flatMap((volume) => ["", ...paths(volume, terminal)])),
  ];
  if (status.notices.length > 0) {
    lines.push("", title(terminal, "Notices"));
    for (const notice of status.notices) {
      lines.push(`  ${paint(terminal, "yellow", "!")} ${printable(notice)}`);
    }
  }
  return `${lines.join("\n")}\n`;
}

/** The connection plan of a proxy's volume, and what has become of it. */
function paths(volume: ProxiedVolume, terminal: Terminal): string[] {
  const lines = [title(terminal, `Paths of ${printable(volume.name)}, route table of epoch ${volume.epoch}`)];
  if (volume.paths.length === 0) lines.push("  none yet");
  for (const path of volume.paths) {
    const colour = path.state === "open" ? "green" : "red";
    const reason = path.reason === undefined ? "" : `: ${printable(path.reason)}`;
    const state = paint(terminal, colour, path.state);
    const commands = formatCount(path.commands);
    const member = path.member === "" ? "(any member)" : printable(path.member);
    lines.push(
      `  ${dot(terminal, colour)} ${member}  ${path.portal}  ${state}${reason}  ${commands} commands`,
    );
  }
  if (volume.held > 0) lines.push(`  ${volume.held} operations wait`);
  return lines;
}

function heading(status: StatusReport, terminal: Terminal): string {
  const name = paint(terminal, "bold", `Plimsoll group ${printable(status.group)}`);
  return `${name}, seen from ${printable(status.member)}: version ${status.version}, ` +
    `up ${formatDuration(status.uptimeMs)}, engine ${status.engine.name}${workers(status.engine.workers)}`;
}

function addressOf({ groupAddress }: StatusReport, terminal: Terminal): string[] {
  if (groupAddress === undefined) return [];
  const { address, holder } = groupAddress;
  const where = holder === null ? paint(terminal, "red", "nobody has it") : `at ${printable(holder)}`;
  return [`Address of the group: ${address}, ${where}`];
}

/** " (2 threads: 3 + 2 connections)". */
function workers(connections: readonly number[] | undefined): string {
  if (connections === undefined || connections.length < 2) return "";
  return ` (${connections.length} threads: ${connections.join(" + ")} connections)`;
}

function members(status: StatusReport, terminal: Terminal): string[] {
  const lines = [title(terminal, "Members")];
  for (const member of status.members) {
    const colour = member.state === "up" ? "green" : member.state === "down" ? "red" : "yellow";
    lines.push(
      `  ${dot(terminal, colour)} ${printable(member.name)}  ${paint(terminal, colour, member.state)}  ${
        loadOf(member)
      }`
        .trimEnd(),
    );
    const width = Math.max(0, ...member.portals.map((p) => p.address.length));
    for (const portal of member.portals) {
      const portalColour = portal.state === "listening" ? "green" : "yellow";
      const reason = portal.reason === undefined ? "" : `: ${printable(portal.reason)}`;
      lines.push(
        `      ${dot(terminal, portalColour)} ${portal.address.padEnd(width)}  ` +
          `group tag ${portal.targetPortalGroupTag}  ${paint(terminal, portalColour, portal.state)}${reason}`,
      );
    }
  }
  return lines;
}

/** Counters of this member, and of every one that tells it what it does now. */
function loadOf({ load, now }: StatusReport["members"][number]): string {
  return [countersOf(load), nowOf(now)].filter((text) => text !== "").join("; ");
}

function nowOf(now: StatusReport["members"][number]["now"]): string {
  if (now === null) return "";
  const { sessions, commandsPerS, readBytesPerS, writtenBytesPerS, cpu, latencyUs } = now;
  return `now ${plural(sessions, "session")}, ${formatCount(commandsPerS)} commands/s, ` +
    `${formatBytes(readBytesPerS)}/s read, ${formatBytes(writtenBytesPerS)}/s written, ` +
    `${Math.round(latencyUs)} µs, CPU ${Math.round(cpu * 100)} %`;
}

function countersOf(load: StatusReport["members"][number]["load"]): string {
  if (load === null) return "";
  const { connections, sessions, commands, bytesRead, bytesWritten } = load;
  return `${plural(sessions, "session")} over ${plural(connections, "connection")}, ${
    formatCount(commands)
  } commands, ` +
    `${formatBytes(bytesRead)} read, ${formatBytes(bytesWritten)} written`;
}

function volumes(list: readonly VolumeReport[], terminal: Terminal): string[] {
  if (list.length === 0) {
    return [title(terminal, "Volumes"), "  none yet: plimsoll volume create NAME --size 10GiB"];
  }
  const width = Math.max(...list.map((v) => v.name.length));
  return [
    title(terminal, "Volumes"),
    ...list.map((v) => {
      const state = v.state === "online"
        ? (v.writeProtected
          ? paint(terminal, "yellow", "write protected")
          : paint(terminal, "green", "online"))
        : paint(terminal, v.state === "deleting" ? "yellow" : "red", v.state);
      return `  ${v.name.padEnd(width)}  ${bar(terminal, v.allocatedBytes, v.sizeBytes, false)}  ` +
        `${usage(v.allocatedBytes, v.sizeBytes)}  ${state}  ${plural(v.sessions, "session")}`;
    }),
  ];
}

function disks(list: readonly DiskReport[], terminal: Terminal): string[] {
  if (list.length === 0) return [title(terminal, "Disks"), "  none"];
  const width = Math.max(...list.map((d) => printable(d.path).length));
  return [
    title(terminal, "Disks"),
    ...list.map((d) => {
      const state = paint(terminal, d.state === "online" ? "green" : "red", d.state);
      const reason = d.reason === undefined ? "" : `: ${printable(d.reason)}`;
      return `  ${printable(d.path).padEnd(width)}  ${
        bar(terminal, d.allocatedBytes, d.usableBytes, true)
      }  ` +
        `${usage(d.allocatedBytes, d.usableBytes)}  ${state}${reason}  on ${printable(d.member)}`;
    }),
  ];
}

/** A full volume is a good thing, a full disk is not: only the latter warns. */
function bar(terminal: Terminal, used: number, all: number, warns: boolean): string {
  const share = all > 0 ? Math.min(1, used / all) : 0;
  const filled = used > 0 ? Math.max(1, Math.round(share * barCells)) : 0;
  const [on, off] = terminal.unicode ? ["█", "░"] : ["#", "."];
  const text = on!.repeat(filled) + off!.repeat(barCells - filled);
  const colour: Colour = !warns || share < nearFull ? "blue" : share < almostFull ? "yellow" : "red";
  return terminal.unicode ? paint(terminal, colour, text) : `[${paint(terminal, colour, text)}]`;
}

function usage(used: number, all: number): string {
  const share = all > 0 ? Math.floor(used / all * 100) : 0;
  return `${formatBytes(used)} of ${formatBytes(all)} (${share} %)`;
}

export function title(terminal: Terminal, text: string): string {
  return paint(terminal, "bold", text);
}

export function dot(terminal: Terminal, colour: Colour): string {
  const mark = terminal.unicode ? (colour === "green" ? "●" : "○") : (colour === "green" ? "*" : "o");
  return paint(terminal, colour, mark);
}

/** Names and reasons come from elsewhere: no control character of theirs reaches the terminal. */
export function printable(text: string): string {
  // deno-lint-ignore no-control-regex
  return text.replace(/[\u0000-\u001f\u007f-\u009f]/g, "?");
}
