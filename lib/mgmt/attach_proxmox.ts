// Proxmox VE: pvesm for the storage, LVM on top of it for the disks of guests. Its iSCSI storage knows no CHAP: that is
// open-iscsi's matter on every node.

import type { AttachStep, AttachTarget } from "./attach.ts";
import { firstPortal, nameNotes, quote, readSecret } from "./attach_text.ts";

export function proxmoxGuide(target: AttachTarget): AttachStep[] {
  const portal = firstPortal(target);
  const storage = `plimsoll-${target.volume}`.replace(/[^\w.-]/g, "-");
  const steps: AttachStep[] = [
    {
      title: "Look up the initiator's name, on every node",
      notes: nameNotes(target),
      commands: ["apt-get install open-iscsi", "cat /etc/iscsi/initiatorname.iscsi"],
    },
    {
      title: "Discover the target",
      notes: ["Discovery lists what this initiator's name may use."],
      commands: [`pvesm scan iscsi ${portal}`],
    },
  ];
  if (target.chapUser !== null) steps.push(chapStep(target));
  steps.push(
    {
      title: "Add the target as storage; Proxmox logs in on every node",
      notes: [],
      commands: [
        `pvesm add iscsi ${storage} --portal ${portal} --target ${target.iqn} --content none`,
        `pvesm status --storage ${storage}`,
      ],
    },
    {
      title: "Put LVM on it, for the disks of guests",
      notes: [
        `Identifier of the volume: ${target.identifier}`,
        "vgcreate asks before it overwrites a file system that is there already.",
      ],
      commands: [
        `disk=/dev/disk/by-path/ip-${portal}-iscsi-${target.iqn}-lun-0`,
        `vgcreate ${storage} "$disk"`,
        `pvesm add lvm ${storage}-lvm --vgname ${storage} --shared 1 --content images,rootdir`,
      ],
    },
  );
  if (target.portals.length > 1) {
    steps.push({
      title: "Several paths (optional)",
      notes: [
        'Set up multipath-tools on every node before guests run; "plimsoll attach --for linux" shows its configuration.',
        "Proxmox logs in to every portal that discovery names, so with several portals multipath is needed, not a luxury.",
      ],
      commands: ["# apt-get install multipath-tools", "# multipath -ll"],
    });
  }
  steps.push({
    title: 'After "plimsoll volume resize", on every node',
    notes: ["pvresize once, on one node."],
    commands: [`iscsiadm -m node -T ${target.iqn} --rescan`, '# pvresize "$disk"'],
  });
  steps.push({
    title: "To detach: remove the storages, log out on every node, forget",
    notes: ["Paste these later, when no guest uses it: they undo the steps above."],
    commands: [
      `# pvesm remove ${storage}-lvm; vgchange -an ${storage}; pvesm remove ${storage}`,
      `# iscsiadm -m node -T ${target.iqn} --logout`,
      `# iscsiadm -m node -T ${target.iqn} -o delete`,
    ],
  });
  return steps;
}

function chapStep(target: AttachTarget): AttachStep {
  const set = (name: string, value: string) =>
    `iscsiadm -m node -T ${target.iqn} -o update -n ${name} -v ${value}`;
  const commands = [
    `iscsiadm -m discovery -t sendtargets -p ${firstPortal(target)}`,
    readSecret(target.chapUser ?? ""),
    set("node.session.auth.authmethod", "CHAP"),
    set("node.session.auth.username", quote(target.chapUser ?? "")),
    set("node.session.auth.password", '"$secret"'),
    "unset secret",
  ];
  if (target.mutualUser !== null) {
    commands.push(
      readSecret(target.mutualUser),
      set("node.session.auth.username_in", quote(target.mutualUser)),
      set("node.session.auth.password_in", '"$secret"'),
      "unset secret",
    );
  }
  return {
    title: "Give the initiator its CHAP secret, on every node",
    notes: [
      "The secret is in the file given to --chap-secret-file (or chap.secret_file); type it when asked.",
    ],
    commands,
  };
}
