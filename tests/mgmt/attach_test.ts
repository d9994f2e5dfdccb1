// Without this, the first thing an operator pastes could fail, tell a secret, or run what a volume's name says.

import { strict as assert } from "node:assert";
import { attachGuide, type AttachTarget, initiatorKinds, renderGuide } from "../../lib/mgmt/attach.ts";

const plain: AttachTarget = {
  volume: "vol0",
  iqn: "iqn.2026-11.net.plimsoll.demo:vol0",
  portals: ["192.0.2.10:3260"],
  chapUser: null,
  mutualUser: null,
  initiators: ["iqn.2026-01.*"],
  writeCache: false,
  blockBytes: 512,
  identifier: "naa.3012345678901234",
};
const rich: AttachTarget = {
  ...plain,
  portals: ["[2001:db8::1]:3260", "192.0.2.10:3261"],
  chapUser: "host1",
  mutualUser: "target1",
};

function text(target: AttachTarget, kind: typeof initiatorKinds[number]): string {
  return renderGuide(attachGuide(target, kind));
}

async function shellParses(script: string): Promise<string> {
  const child = new Deno.Command("bash", { args: ["-n"], stdin: "piped", stderr: "piped" }).spawn();
  const writer = child.stdin.getWriter();
  await writer.write(new TextEncoder().encode(script));
  await writer.close();
  return new TextDecoder().decode((await child.output()).stderr);
}

Deno.test("every kind names the target, a portal, how to log in and how to detach", () => {
  for (const kind of initiatorKinds) {
    for (const target of [plain, rich]) {
      const guide = text(target, kind);
      assert.ok(guide.includes(target.iqn), kind);
      const port = kind === "windows" ? `-TargetPortalPortNumber 3260` : target.portals[0]!;
      assert.ok(guide.includes(port), kind);
      assert.match(guide, kind === "qemu" ? /logs out/ : /To detach/, kind);
      assert.match(guide, /resize/, kind);
      assert.match(guide, /naa\.3012345678901234/, kind);
      assert.match(guide, target === rich ? /[Ss]everal paths/ : /^/, kind);
    }
  }
});

Deno.test("on VMware every portal that was named is forgotten again", () => {
  const guide = text(rich, "vmware");
  for (const portal of rich.portals) {
    for (const verb of ["add", "remove"]) {
      assert.ok(
        guide.includes(`statictarget ${verb} --adapter="$hba" --address=${portal} `),
        `${verb} ${portal}`,
      );
    }
  }
});

Deno.test("everything but commands is a comment, and what undoes the steps is one too", () => {
  const linux = text(rich, "linux").split("\n");
  for (const line of linux.filter((l) => /umount|--logout|-o delete/.test(l))) assert.match(line, /^# /);
  const windows = text(rich, "windows").split("\n");
  for (const line of windows.filter((l) => /Disconnect|Remove-|Unregister/.test(l))) {
    assert.match(line, /^# /);
  }
  const qemu = text(rich, "qemu").split("\n");
  for (const line of qemu.filter((l) => /qemu-img convert/.test(l))) assert.match(line, /^# /);
});

Deno.test("CHAP steps come only with CHAP, ask for each secret, and set both directions", () => {
  for (const kind of initiatorKinds) {
    assert.ok(!/CHAP/i.test(text(plain, kind)), kind);
    const guide = text(rich, kind);
    assert.match(guide, /host1/, kind);
    assert.match(guide, kind === "qemu" ? /cannot do mutual CHAP/ : /target1/, kind);
  }
  assert.match(text(rich, "linux"), /username_in -v target1/);
  assert.match(text(rich, "windows"), /MUTUALCHAP -ChapUsername 'host1' -ChapSecret \$secret/);
  assert.match(text({ ...rich, mutualUser: null }, "windows"), /ONEWAYCHAP/);
  assert.match(text(rich, "vmware"), /--direction=mutual/);
});

Deno.test("what is pasted into a shell is what a shell can parse, whatever the names are", async () => {
  const odd = { ...rich, chapUser: `o'brien $(touch /tmp/x) "q" \`id\`\nrm -rf /`, mutualUser: "a b;c" };
  for (const kind of ["linux", "vmware", "proxmox", "qemu"] as const) {
    for (const target of [plain, rich, odd]) assert.equal(await shellParses(text(target, kind)), "", kind);
    const lines = text(odd, kind).split("\n");
    assert.ok(!lines.some((line) => line.startsWith("rm")), "a name made a line of its own");
  }
});

Deno.test("a name is data to the shell that the steps are pasted into", async () => {
  const odd = { ...rich, chapUser: "$(echo run)`echo run`'; echo run; '" };
  for (const kind of ["linux", "proxmox", "vmware"] as const) {
    const line = text(odd, kind).split("\n").find((l) => l.includes("CHAP secret of"))!;
    const shown = line.replace(/read -rsp|printf %s/, "printf '%s\\n'").replace(/ secret;.*|; stty.*/, "");
    const { stdout } = await new Deno.Command("bash", { args: ["-c", shown] }).output();
    assert.equal(new TextDecoder().decode(stdout), `CHAP secret of ${odd.chapUser}: \n`, kind);
  }
});

Deno.test("what stands in the way is said first", () => {
  const warnings = (change: Partial<AttachTarget>, kind: typeof initiatorKinds[number] = "linux") =>
    attachGuide({ ...plain, ...change }, kind).warnings.join("\n");
  assert.equal(warnings({}), "");
  assert.match(warnings({ portals: ["127.0.0.1:3260", "[::1]:3260"] }), /loopback/);
  assert.match(warnings({ initiators: null }), /nobody may use this volume/);
  assert.equal(warnings({ initiators: null, chapUser: "u" }), "");
  assert.match(warnings({ initiators: [] }), /empty/);
  assert.match(warnings({ writeCache: true }, "vmware"), /--write-cache off/);
  assert.equal(warnings({ writeCache: true }, "linux"), "");
  assert.match(warnings({ blockBytes: 4096 }, "vmware"), /512/);
});
