// VMware ESXi: the software iSCSI adapter, by esxcli in the host's shell.

import type { AttachStep, AttachTarget } from "./attach.ts";
import { nameNotes, quote } from "./attach_text.ts";

export function vmwareGuide(target: AttachTarget): AttachStep[] {
  const at = target.portals.map((portal) => `--adapter="$hba" --address=${portal} --name=${target.iqn}`);
  const steps: AttachStep[] = [
    {
      title: "Turn the software adapter on and look up its name",
      notes: nameNotes(target),
      commands: [
        "esxcli iscsi software set --enabled=true",
        'hba=$(esxcli iscsi adapter list | awk \'$2 == "iscsi_vmk" {print $1; exit}\'); echo "$hba"',
        "esxcli iscsi adapter get --adapter=\"$hba\" | grep 'Name: iqn'",
      ],
    },
    {
      title: "Name the target",
      notes: ["Static discovery: the host asks for this target and no other."],
      commands: at.map((where) => `esxcli iscsi adapter discovery statictarget add ${where}`),
    },
  ];
  if (target.chapUser !== null) steps.push(chapStep(target));
  steps.push(
    {
      title: "Log in and find the disk",
      notes: [
        `Identifier of the volume: ${target.identifier}`,
        "Then make a datastore of it: vSphere Client, host, Storage, New datastore.",
      ],
      commands: [
        'esxcli storage core adapter rescan --adapter="$hba"',
        "esxcli storage core device list | grep -B1 -A8 PLIMSOLL",
      ],
    },
  );
  if (target.portals.length > 1) {
    steps.push({
      title: "Several paths (optional)",
      notes: [
        "ESXi joins the paths by itself; this makes it use all of them in turn. Take DEVICE from the list above.",
      ],
      commands: ["# esxcli storage nmp device set --device=DEVICE --psp=VMW_PSP_RR"],
    });
  }
  steps.push(
    {
      title: 'After "plimsoll volume resize"',
      notes: ["Then grow the datastore in the vSphere Client."],
      commands: ['esxcli storage core adapter rescan --adapter="$hba"'],
    },
    {
      title: "To detach: unmount the datastore, take the device off, forget the target",
      notes: ["Paste these later: they undo the steps above. Take NAME and DEVICE from the lists."],
      commands: [
        "# esxcli storage filesystem unmount --volume-label=NAME",
        "# esxcli storage core device set --device=DEVICE --state=off",
        ...at.map((where) => `# esxcli iscsi adapter discovery statictarget remove ${where}`),
        '# esxcli storage core adapter rescan --adapter="$hba"',
      ],
    },
  );
  return steps;
}

function chapStep(target: AttachTarget): AttachStep {
  const set = (portal: string, direction: "uni" | "mutual", user: string) =>
    `esxcli iscsi adapter target portal auth chap set --adapter="$hba" --address=${portal} --name=${target.iqn} ` +
    `--direction=${direction} --level=required --authname=${quote(user)} --secret="$secret"`;
  const commands: string[] = [];
  const ask = (user: string, direction: "uni" | "mutual") => {
    commands.push(
      `printf %s ${quote(`CHAP secret of ${user}: `)}; stty -echo; read -r secret; stty echo; echo`,
    );
    for (const portal of target.portals) commands.push(set(portal, direction, user));
    commands.push("unset secret");
  };
  ask(target.chapUser ?? "", "uni");
  const notes = [
    "The secret is in the file given to --chap-secret-file (or chap.secret_file); type it when asked.",
  ];
  if (target.mutualUser !== null) {
    notes.push("The second secret is the target's: with it the target proves itself (mutual CHAP).");
    ask(target.mutualUser, "mutual");
  }
  return { title: "Give the host its CHAP secret", notes, commands };
}
