// The steps that attach a volume, for each kind of initiator: what `plimsoll attach` prints. Pure text; attach_*.ts
// know the initiators. A secret is never in it: the steps ask for it where they are carried out.

import { linuxGuide } from "./attach_linux.ts";
import { proxmoxGuide } from "./attach_proxmox.ts";
import { qemuGuide } from "./attach_qemu.ts";
import { vmwareGuide } from "./attach_vmware.ts";
import { windowsGuide } from "./attach_windows.ts";

export const initiatorKinds = ["linux", "windows", "vmware", "proxmox", "qemu"] as const;
export type InitiatorKind = typeof initiatorKinds[number];

/** What the steps need to know of a volume. */
export interface AttachTarget {
  readonly volume: string;
  readonly iqn: string;
  /** "127.0.0.1:3260", "[::1]:3260"; at least one. Those that listen come first. */
  readonly portals: readonly string[];
  readonly chapUser: string | null;
  readonly mutualUser: string | null;
  readonly initiators: readonly string[] | null;
  readonly writeCache: boolean;
  readonly blockBytes: number;
  /** VPD 83 identifier as the initiator shows it. */
  readonly identifier: string;
}

export interface AttachStep {
  readonly title: string;
  /** Sentences to read first. */
  readonly notes: readonly string[];
  /** Lines to paste. */
  readonly commands: readonly string[];
}

export interface AttachGuide {
  readonly volume: string;
  readonly for: InitiatorKind;
  /** What stands in the way, if anything; sentences. */
  readonly warnings: readonly string[];
  readonly steps: readonly AttachStep[];
}

const guides: Readonly<Record<InitiatorKind, (target: AttachTarget) => AttachStep[]>> = {
  linux: linuxGuide,
  windows: windowsGuide,
  vmware: vmwareGuide,
  proxmox: proxmoxGuide,
  qemu: qemuGuide,
};

export function attachGuide(target: AttachTarget, kind: InitiatorKind): AttachGuide {
  return {
    volume: target.volume,
    for: kind,
    warnings: warningsOf(target, kind),
    steps: guides[kind](target),
  };
}

/** All of a guide as lines to paste: everything but commands is a comment. */
export function renderGuide(guide: AttachGuide): string {
  const lines = [`# Volume ${guide.volume} on ${nameOf[guide.for]}`];
  for (const warning of guide.warnings) lines.push(`# ATTENTION: ${warning}`);
  guide.steps.forEach((step, i) => {
    lines.push("", `# ${i + 1}. ${step.title}`);
    for (const note of step.notes) lines.push(`#    ${note}`);
    lines.push(...step.commands);
  });
  return `${lines.map(printable).join("\n")}\n`;
}

/** Names come from elsewhere: none of them makes a line of its own. */
function printable(line: string): string {
  // deno-lint-ignore no-control-regex
  return line.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]/g, "?");
}

const nameOf: Readonly<Record<InitiatorKind, string>> = {
  linux: "Linux (open-iscsi)",
  windows: "Windows (PowerShell as administrator)",
  vmware: "VMware ESXi (esxcli)",
  proxmox: "Proxmox VE (on one node of the cluster)",
  qemu: "QEMU (built-in initiator)",
};

function warningsOf(target: AttachTarget, kind: InitiatorKind): string[] {
  const out: string[] = [];
  const remote = target.portals.filter((p) => !isLoopbackPortal(p));
  if (remote.length === 0) {
    out.push(
      "every portal is a loopback address, so only this machine can attach it. " +
        `For others add an address of the network to [member] portals.`,
    );
  } else if (target.initiators === null && target.chapUser === null) {
    out.push(
      "nobody may use this volume yet, except over a loopback portal. " +
        `Allow a name first: plimsoll volume set ${target.volume} --initiators 'NAME'`,
    );
  }
  if (target.initiators?.length === 0) {
    out.push(
      `the list of initiators is empty: nobody may log in. ` +
        `Allow a name first: plimsoll volume set ${target.volume} --initiators 'NAME'`,
    );
  }
  if (kind === "vmware" && target.writeCache) {
    out.push(
      "ESXi takes every acknowledged write as durable, but the write cache of this volume is on. " +
        `Turn it off: plimsoll volume set ${target.volume} --write-cache off`,
    );
  }
  if (kind === "vmware" && target.blockBytes !== 512) {
    out.push(`ESXi uses iSCSI disks with blocks of 512 bytes only; this volume has ${target.blockBytes}.`);
  }
  return out;
}

function isLoopbackPortal(portal: string): boolean {
  return portal.startsWith("127.") || portal.startsWith("[::1]");
}
