// What `plimsoll status` draws of a host agent: each volume, its device, and how each of its legs is.

import type { AgentLegReport, AgentReport, AgentVolumeReport } from "../lib/mgmt/agent_control.ts";
import { formatBytes, formatDuration, plural } from "./quantity.ts";
import { dot, printable, title } from "./status_picture.ts";
import { type Colour, paint, type Terminal } from "./terminal.ts";

const looks: Readonly<Record<AgentLegReport["state"], { readonly colour: Colour; readonly text: string }>> = {
  home: { colour: "green", text: "straight to it" },
  fallback: { colour: "yellow", text: "through other members" },
  waiting: { colour: "red", text: "no path: commands wait" },
  failing: { colour: "red", text: "no path: commands end with errors" },
};

export function agentPicture(report: AgentReport, terminal: Terminal): string {
  const { group, host, version, uptimeMs, problems, volumes } = report;
  const name = paint(terminal, "bold", `Plimsoll host agent of group ${printable(group)}`);
  const lines = [
    `${name} on ${printable(host)}: version ${version}, up ${formatDuration(uptimeMs)}`,
    ...problems.map((problem) => problemLine(problem, terminal)),
    ...volumes.flatMap((volume) => ["", ...volumeLines(volume, terminal)]),
  ];
  return `${lines.join("\n")}\n`;
}

function volumeLines(volume: AgentVolumeReport, terminal: Terminal): string[] {
  const { name, device, learned, legs, logins, problems, lastProblem } = volume;
  const ready = problems.length === 0;
  const state = ready
    ? paint(terminal, "green", "ready")
    : paint(terminal, device === null ? "red" : "yellow", device === null ? "no device" : "see below");
  const mode = device?.readOnly === true ? "  read-only" : "";
  const where = device === null ? "" : `  ${printable(device.path)}  ${formatBytes(device.sizeBytes)}${mode}`;
  const lines = [`${title(terminal, printable(name))}${where}  ${state}`];
  if (learned !== null) {
    const kernel = device?.epoch ?? null;
    const epochs = kernel === learned.epoch
      ? `epoch ${kernel}, the members' and the kernel's`
      : `epoch ${learned.epoch}, the kernel has ${kernel ?? "none yet"}`;
    lines.push(
      `  route table of ${epochs}; pages of ${formatBytes(learned.pageBytes)}; ` +
        `heard of ${formatDuration(learned.agoMs)} ago`,
    );
  }
  for (const leg of legs) lines.push(...legLines(leg, terminal));
  const told = [...problems, ...logins.map(({ reason }) => reason)];
  for (const problem of told) lines.push(problemLine(problem, terminal));
  if (lastProblem !== null && !told.includes(lastProblem.message)) {
    lines.push(`  last problem, ${formatDuration(lastProblem.agoMs)} ago: ${printable(lastProblem.message)}`);
  }
  return lines;
}

function legLines({ member, state, regions, paths }: AgentLegReport, terminal: Terminal): string[] {
  const { colour, text } = looks[state];
  const lines = [
    `  ${dot(terminal, colour)} ${printable(member)}  ${plural(regions, "page")}  ${
      paint(terminal, colour, text)
    }`,
  ];
  for (const path of paths) {
    const pathColour = path.state === "active" ? "green" : "red";
    const whose = path.member === member ? "" : `  (${path.member === "" ? "any" : printable(path.member)})`;
    lines.push(
      `      ${dot(terminal, pathColour)} ${path.portal}  ${printable(path.disk)}  ` +
        `${paint(terminal, pathColour, path.state)}${whose}`,
    );
  }
  return lines;
}

function problemLine(problem: string, terminal: Terminal): string {
  return `  ${paint(terminal, "yellow", "!")} ${printable(problem)}`;
}
