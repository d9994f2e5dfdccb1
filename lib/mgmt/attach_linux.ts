// Linux: open-iscsi's iscsiadm, one path first, multipath as a step of its own. Two paths without multipath would show
// one volume as two disks, and mounting both destroys the file system.

import type { AttachStep, AttachTarget } from "./attach.ts";
import { firstPortal, nameNotes, quote, readSecret } from "./attach_text.ts";

export function linuxGuide(target: AttachTarget): AttachStep[] {
  const steps: AttachStep[] = [
    {
      title: "Install the initiator and look up its name",
      notes: ["Debian, Ubuntu; elsewhere: dnf install iscsi-initiator-utils", ...nameNotes(target)],
      commands: [
        "sudo apt-get install open-iscsi",
        "sudo systemctl enable --now iscsid",
        "sudo cat /etc/iscsi/initiatorname.iscsi",
      ],
    },
    {
      title: "Discover the target",
      notes: ["Discovery lists what this initiator's name may use."],
      commands: discoveryCommands(target),
    },
  ];
  if (target.chapUser !== null) steps.push(chapStep(target));
  steps.push(
    {
      title: "Log in, and again at every boot",
      notes: [],
      commands: [
        `sudo iscsiadm -m node -T ${target.iqn} -p ${
          firstPortal(target)
        } -o update -n node.startup -v automatic`,
        `sudo iscsiadm -m node -T ${target.iqn} -p ${firstPortal(target)} --login`,
      ],
    },
    {
      title: "Find the disk, and put a file system on it the first time",
      notes: [
        `Identifier of the volume: ${target.identifier}`,
        "mkfs.ext4 asks before it overwrites a file system that is there already.",
      ],
      commands: [
        `disk=/dev/disk/by-path/ip-${firstPortal(target)}-iscsi-${target.iqn}-lun-0`,
        'sudo udevadm settle; lsblk "$disk"',
        'sudo mkfs.ext4 "$disk"',
      ],
    },
    {
      title: "Mount it",
      notes: ["In /etc/fstab give it the option _netdev, so that it waits for the network."],
      commands: [
        `sudo mkdir -p /mnt/${target.volume}`,
        `sudo mount -o _netdev "$disk" /mnt/${target.volume}`,
      ],
    },
  );
  if (target.portals.length > 1) steps.push(multipathStep(target));
  steps.push(
    {
      title: 'After "plimsoll volume resize"',
      notes: ["Linux is told of the change (unit attention), and takes the new size with a rescan."],
      commands: [`sudo iscsiadm -m node -T ${target.iqn} --rescan`, 'sudo resize2fs "$disk"'],
    },
    {
      title: "To detach: unmount, log out, forget",
      notes: ["Paste these later: they undo the steps above."],
      commands: [
        `# sudo umount /mnt/${target.volume}`,
        `# sudo iscsiadm -m node -T ${target.iqn} --logout`,
        `# sudo iscsiadm -m node -T ${target.iqn} -o delete`,
      ],
    },
  );
  return steps;
}

export function discoveryCommands(target: AttachTarget): string[] {
  return [`sudo iscsiadm -m discovery -t sendtargets -p ${firstPortal(target)}`];
}

/** The secret is typed, so it is in no history; iscsiadm keeps it in /etc/iscsi, readable by root only. */
function chapStep(target: AttachTarget): AttachStep {
  const set = (name: string, value: string) =>
    `sudo iscsiadm -m node -T ${target.iqn} -o update -n ${name} -v ${value}`;
  const commands = [
    readSecret(target.chapUser ?? ""),
    set("node.session.auth.authmethod", "CHAP"),
    set("node.session.auth.username", quote(target.chapUser ?? "")),
    set("node.session.auth.password", '"$secret"'),
    "unset secret",
  ];
  const notes = [
    "The secret is in the file given to --chap-secret-file (or chap.secret_file); type it when asked.",
  ];
  if (target.mutualUser !== null) {
    notes.push("The second secret is the target's: with it the target proves itself (mutual CHAP).");
    commands.push(
      readSecret(target.mutualUser),
      set("node.session.auth.username_in", quote(target.mutualUser)),
      set("node.session.auth.password_in", '"$secret"'),
      "unset secret",
    );
  }
  return { title: "Give the initiator its CHAP secret", notes, commands };
}

function multipathStep(target: AttachTarget): AttachStep {
  return {
    title: "Several paths (optional)",
    notes: [
      `The target has ${target.portals.length} portals. Log in to the others only together with multipath:`,
      "without it one volume shows up as several disks, and mounting two of them destroys the file system.",
      "Unmount first, then use /dev/mapper/… instead of $disk.",
    ],
    commands: [
      "# sudo apt-get install multipath-tools",
      `# printf 'devices {\\n  device {\\n    vendor "PLIMSOLL"\\n    product ".*"\\n    path_grouping_policy multibus\\n    path_checker tur\\n    no_path_retry queue\\n  }\\n}\\n' | sudo tee /etc/multipath/conf.d/plimsoll.conf`,
      "# sudo systemctl restart multipathd",
      ...target.portals.slice(1).map((portal) =>
        `# sudo iscsiadm -m node -T ${target.iqn} -p ${portal} --login`
      ),
      "# sudo multipath -ll",
    ],
  };
}
