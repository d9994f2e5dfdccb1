// Windows: the iSCSI cmdlets of PowerShell. Windows takes CHAP secrets of 12 to 16 characters only.

import type { AttachStep, AttachTarget } from "./attach.ts";
import { firstPortal, nameNotes, splitPortal } from "./attach_text.ts";

export function windowsGuide(target: AttachTarget): AttachStep[] {
  const [address, port] = splitPortal(firstPortal(target));
  const connect = [
    "Connect-IscsiTarget",
    `-NodeAddress ${target.iqn}`,
    `-TargetPortalAddress ${address} -TargetPortalPortNumber ${port}`,
    "-IsPersistent $true",
    ...chapArguments(target),
  ].join(" ");
  const steps: AttachStep[] = [
    {
      title: "Start the initiator and look up its name",
      notes: nameNotes(target),
      commands: [
        "Set-Service MSiSCSI -StartupType Automatic; Start-Service MSiSCSI",
        "(Get-InitiatorPort | Where-Object ConnectionType -eq iSCSI).NodeAddress",
      ],
    },
    {
      title: "Discover the target",
      notes: ["Discovery lists what this initiator's name may use."],
      commands: [
        `New-IscsiTargetPortal -TargetPortalAddress ${address} -TargetPortalPortNumber ${port}`,
        "Get-IscsiTarget",
      ],
    },
  ];
  if (target.chapUser !== null) steps.push(chapStep(target));
  steps.push(
    { title: "Log in, and again at every boot", notes: [], commands: [connect] },
    {
      title: "Bring the disk online; the first time, partition and format it",
      notes: [
        `Identifier of the volume: ${target.identifier}`,
        "Initialize-Disk refuses a disk that has partitions already.",
      ],
      commands: [
        `$disk = Get-IscsiSession | Where-Object TargetNodeAddress -eq ${target.iqn} | Get-Disk | Select-Object -First 1`,
        "Set-Disk -Number $disk.Number -IsOffline $false; Set-Disk -Number $disk.Number -IsReadOnly $false",
        "Initialize-Disk -Number $disk.Number -PartitionStyle GPT",
        `New-Partition -DiskNumber $disk.Number -UseMaximumSize -AssignDriveLetter | Format-Volume -FileSystem NTFS -NewFileSystemLabel '${target.volume}'`,
      ],
    },
  );
  if (target.portals.length > 1) steps.push(multipathStep(target));
  steps.push(
    {
      title: 'After "plimsoll volume resize"',
      notes: [],
      commands: [
        "Update-HostStorageCache",
        "$part = Get-Partition -DiskNumber $disk.Number | Where-Object DriveLetter",
        "Resize-Partition -InputObject $part -Size (Get-PartitionSupportedSize -InputObject $part).SizeMax",
      ],
    },
    {
      title: "To detach: take the disk offline, log out, forget",
      notes: ["Paste these later: they undo the steps above."],
      commands: [
        "# Set-Disk -Number $disk.Number -IsOffline $true",
        `# Get-IscsiSession | Where-Object TargetNodeAddress -eq ${target.iqn} | Unregister-IscsiSession`,
        `# Disconnect-IscsiTarget -NodeAddress ${target.iqn} -Confirm:$false`,
        `# Remove-IscsiTargetPortal -TargetPortalAddress ${address} -TargetPortalPortNumber ${port} -Confirm:$false`,
      ],
    },
  );
  return steps;
}

function chapArguments(target: AttachTarget): string[] {
  if (target.chapUser === null) return [];
  const kind = target.mutualUser === null ? "ONEWAYCHAP" : "MUTUALCHAP";
  return [
    `-AuthenticationType ${kind} -ChapUsername ${quotePowerShell(target.chapUser)} -ChapSecret $secret`,
  ];
}

function chapStep(target: AttachTarget): AttachStep {
  const read = (user: string) =>
    `[Net.NetworkCredential]::new('', (Read-Host -AsSecureString ${
      quotePowerShell(`CHAP secret of ${user}`)
    })).Password`;
  const notes = [
    "The secret is in the file given to --chap-secret-file (or chap.secret_file); type it when asked.",
    "Windows takes secrets of 12 to 16 characters only.",
  ];
  const commands = [`$secret = ${read(target.chapUser ?? "")}`];
  if (target.mutualUser !== null) {
    notes.push("The second secret is the target's: with it the target proves itself (mutual CHAP).");
    commands.push(`Set-IscsiChapSecret -ChapSecret (${read(target.mutualUser)})`);
  }
  return { title: "Type the CHAP secret", notes, commands };
}

function multipathStep(target: AttachTarget): AttachStep {
  return {
    title: "Several paths (optional, Windows Server)",
    notes: [
      `The target has ${target.portals.length} portals. Use the others only together with MPIO (it needs a restart):`,
      "without it one volume shows up as several disks.",
    ],
    commands: [
      "# Install-WindowsFeature Multipath-IO; Enable-MSDSMAutomaticClaim -BusType iSCSI; Restart-Computer",
      ...target.portals.map((portal) => {
        const [address, port] = splitPortal(portal);
        const chap = chapArguments(target).map((a) => ` ${a}`).join("");
        return `# Connect-IscsiTarget -NodeAddress ${target.iqn} -TargetPortalAddress ${address} ` +
          `-TargetPortalPortNumber ${port} -IsPersistent $true -IsMultipathEnabled $true${chap}`;
      }),
    ],
  };
}

function quotePowerShell(text: string): string {
  return `'${text.replaceAll("'", "''")}'`;
}
