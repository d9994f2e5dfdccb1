// Without this, a change could break what QEMU and libiscsi do with a disk: 256 MiB of random bytes there and back,
// open, with one-way CHAP, with mutual CHAP, each with and without header digests.

import { strict as assert } from "node:assert";
import { finish, interop, succeed } from "./tools.ts";
import { TargetProcess } from "./target_process.ts";

const mebibytes = 256;
const chap = { user: "reader", secret: "one-way-secret-1" };
const mutual = { user: "the-target", secret: "mutual-secret-2" };

// qemu-img has no option for mutual CHAP; libiscsi has. This is loaded before it and adds the call.
const shim = `
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
int iscsi_set_target_username_pwd(void *context, const char *user, const char *secret);
int iscsi_set_initiator_username_pwd(void *context, const char *user, const char *secret) {
  int (*real)(void *, const char *, const char *) = dlsym(RTLD_NEXT, "iscsi_set_initiator_username_pwd");
  return real(context, user, secret) || iscsi_set_target_username_pwd(context, getenv("MUTUAL_USER"), getenv("MUTUAL_SECRET"));
}
`;

/** The volume as an --image-opts text; a comma in a value would have to be doubled. */
function imageOptions(target: TargetProcess, volume: string, digest: string, secret?: typeof chap): string {
  const file: Record<string, string> = {
    driver: "iscsi",
    transport: "tcp",
    portal: target.portals[0],
    target: target.iqn(volume),
    lun: "0",
    "header-digest": digest,
    ...(secret === undefined ? {} : { user: secret.user, "password-secret": "s" }),
  };
  return "driver=raw," + Object.entries(file).map(([k, v]) => `file.${k}=${v}`).join(",");
}

interop("qemu-img writes and compares 256 MiB: open, CHAP, mutual CHAP, header digests", [
  "qemu-img",
  "/usr/lib/x86_64-linux-gnu/qemu/block-iscsi.so",
  "gcc",
  "head",
], async () => {
  await using target = await TargetProcess.start({
    volumes: [
      { name: "open", size: `${mebibytes}MiB` },
      { name: "one", size: `${mebibytes}MiB`, chap },
      { name: "two", size: `${mebibytes}MiB`, chap, mutual },
    ],
  });
  const dir = target.directory;
  await succeed("sh", ["-c", `head -c ${mebibytes}M /dev/urandom >image`], { cwd: dir, secondsMax: 60 });
  await Deno.writeTextFile(`${dir}/shim.c`, shim);
  await succeed("gcc", [
    "-shared",
    "-fPIC",
    "-o",
    "shim.so",
    "shim.c",
    "-Wl,--no-as-needed",
    "-l:libiscsi.so.7",
  ], {
    cwd: dir,
    secondsMax: 60,
  });
  const mutualEnvironment = (secret: string) => ({
    LD_PRELOAD: `${dir}/shim.so`,
    MUTUAL_USER: mutual.user,
    MUTUAL_SECRET: secret,
  });

  for (const digest of ["none", "crc32c"]) {
    for (const volume of ["open", "one", "two"]) {
      const secret = volume === "open" ? undefined : chap;
      const image = imageOptions(target, volume, digest, secret);
      const object = secret === undefined ? [] : ["--object", `secret,id=s,data=${secret.secret}`];
      const env = volume === "two" ? mutualEnvironment(mutual.secret) : {};
      await succeed(
        "qemu-img",
        ["convert", "-n", "-f", "raw", ...object, "--target-image-opts", `${dir}/image`, image],
        { secondsMax: 120, env },
      );
      const told = await succeed(
        "qemu-img",
        ["compare", "-s", ...object, "--image-opts", `driver=raw,file.filename=${dir}/image`, image],
        { secondsMax: 120, env },
      );
      assert.match(told, /Images are identical/, `${volume}, header digest ${digest}`);
    }
    // The second round must really write: another image.
    await succeed("sh", ["-c", `head -c ${mebibytes}M /dev/urandom >image`], { cwd: dir, secondsMax: 60 });
  }

  // A wrong secret is refused: by the target one way, by the initiator (which checks the target's answer) the other.
  const refusedByTarget = await finish(
    "qemu-img",
    [
      "info",
      "--object",
      "secret,id=s,data=not-the-secret-1",
      "--image-opts",
      imageOptions(target, "one", "none", chap),
    ],
    { secondsMax: 30 },
  );
  assert.notEqual(refusedByTarget.code, 0, "one-way CHAP with a wrong secret");
  const refusedByInitiator = await finish("qemu-img", [
    "info",
    ...[
      "--object",
      `secret,id=s,data=${chap.secret}`,
      "--image-opts",
      imageOptions(target, "two", "none", chap),
    ],
  ], { secondsMax: 30, env: mutualEnvironment("not-the-secret-2") });
  assert.match(refusedByInitiator.output, /Invalid CHAP_R response/);
  assert.equal((await target.stop()).code, 0);
});
