// QEMU: its own initiator (libiscsi), so neither root nor a kernel module is needed. It uses one path and cannot ask
// the target to prove itself.

import type { AttachStep, AttachTarget } from "./attach.ts";
import { firstPortal, nameNotes, quote, readSecret } from "./attach_text.ts";

export function qemuGuide(target: AttachTarget): AttachStep[] {
  const portal = firstPortal(target);
  const options = [
    "driver=iscsi",
    "transport=tcp",
    `portal=${portal}`,
    `target=${target.iqn}`,
    "lun=0",
    'initiator-name="$name"',
  ];
  const secret = target.chapUser === null ? "" : " --object secret,id=chap0,file=chap.secret";
  if (target.chapUser !== null) {
    options.push(`user=${quote(target.chapUser.replaceAll(",", ",,"))}`, "password-secret=chap0");
  }
  const joined = options.join(",");
  const steps: AttachStep[] = [
    {
      title: "Install QEMU with its iSCSI driver and choose the initiator's name",
      notes: ["Debian, Ubuntu; elsewhere the package is qemu-block-iscsi.", ...nameNotes(target)],
      commands: ["sudo apt-get install qemu-utils qemu-block-extra", `name=${quote(exampleName(target))}`],
    },
  ];
  if (target.chapUser !== null) {
    steps.push({
      title: "Keep the CHAP secret in a file that only you can read",
      notes: [
        "The secret is in the file given to --chap-secret-file (or chap.secret_file); type it when asked.",
        "QEMU takes the whole file, so there must be no line end in it.",
        ...(target.mutualUser === null
          ? []
          : ["QEMU cannot do mutual CHAP: it does not check that the target is the right one."]),
      ],
      commands: [
        readSecret(target.chapUser),
        '(umask 077; printf %s "$secret" > chap.secret); unset secret',
      ],
    });
  }
  steps.push(
    {
      title: "Log in and look at the disk",
      notes: [`Identifier of the volume: ${target.identifier}`],
      commands: [`qemu-img info${secret} --image-opts ${joined}`],
    },
    {
      title: "Copy an image onto it (this overwrites the volume)",
      notes: [],
      commands: [
        `# qemu-img convert -p -n${secret} disk.qcow2 --target-image-opts ${joined}`,
      ],
    },
    {
      title: "Run a guest with it",
      notes: [
        "Shutting the guest down logs out. One QEMU at a time, unless the guest's file system is made for sharing.",
      ],
      commands: [
        `qemu-system-x86_64 -m 2048${
          secret.replace("--object", "-object")
        } -blockdev ${joined},node-name=disk0,cache.direct=on -device virtio-blk-pci,drive=disk0`,
      ],
    },
    {
      title: 'After "plimsoll volume resize"',
      notes: ["In the monitor of the running guest:"],
      commands: ["# block_resize disk0 NEWSIZE"],
    },
  );
  if (target.portals.length > 1) {
    steps.push({
      title: "Several paths",
      notes: [
        "QEMU uses one path. For several, attach the volume to the host (plimsoll attach --for linux) and",
        "give the guest the multipath device; or name another portal above to spread guests:",
        ...target.portals.slice(1),
      ],
      commands: [],
    });
  }
  return steps;
}

function exampleName(target: AttachTarget): string {
  const plain = target.initiators?.find((pattern) => pattern !== "*");
  return plain === undefined ? "iqn.2008-11.org.linux-kvm:guest1" : plain.replaceAll("*", "guest1");
}
