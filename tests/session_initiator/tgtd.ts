// tgtd (Debian package tgt) as a peer: an iSCSI target that we did not write. Started on a free port with a private
// control socket, ended by its process id.

import { freePort } from "../interop/target_process.ts";

export interface Tgtd {
  readonly portal: { hostname: string; port: number };
  /** LUN 1 of each, 64 MiB: open, CHAP (user1/secret-secret, MD5 alone: it takes 7 for SHA-1), mutual CHAP (and out1). */
  readonly open: string;
  readonly chap: string;
  readonly mutual: string;
  /** Takes digests. */
  readonly digests: string;
  stop(): Promise<void>;
}

export const tgtdUser = { user: "user1", secret: new TextEncoder().encode("secret-secret") };
export const tgtdOutgoing = { user: "out1", secret: new TextEncoder().encode("other-secret1") };

export async function startTgtd(): Promise<Tgtd> {
  const directory = await Deno.makeTempDir({ prefix: "tgtd-" });
  const port = freePort();
  const control = String(port % 30000);
  const env = { TGT_IPC_SOCKET: `${directory}/tgt.sock` };
  let child: Deno.ChildProcess;
  try {
    child = new Deno.Command("tgtd", {
      args: ["-f", "-C", control, "--iscsi", `portal=127.0.0.1:${port}`],
      env,
      stdout: "null",
      stderr: "null",
    }).spawn();
  } catch (error) {
    await Deno.remove(directory, { recursive: true });
    throw error;
  }
  const admin = async (...args: string[]) => {
    const command = new Deno.Command("tgtadm", { args: ["-C", control, "--lld", "iscsi", ...args], env });
    const { success, stderr } = await command.output();
    return success ? null : `tgtadm ${args.join(" ")}: ${new TextDecoder().decode(stderr)}`;
  };
  const stop = async () => {
    child.kill("SIGKILL"); // nothing of it is to be kept
    await child.status;
    await Deno.remove(directory, { recursive: true });
  };
  try {
    for (let i = 0; await admin("--mode", "sys", "--op", "show") !== null; i++) {
      if (i === 100) throw new Error("tgtd does not answer tgtadm");
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    const must = async (...args: string[]) => {
      const problem = await admin(...args);
      if (problem !== null) throw new Error(problem);
    };
    const account = ["--mode", "account", "--op"];
    await must(...account, "new", "--user", "user1", "--password", "secret-secret");
    await must(...account, "new", "--user", "out1", "--password", "other-secret1");
    const names = ["open", "chap", "mutual", "digests"].map((n) => `iqn.2026-11.net.plimsoll.peer:${n}`);
    for (const [i, name] of names.entries()) {
      const tid = String(i + 1);
      const disk = `${directory}/disk${tid}.img`;
      const file = await Deno.open(disk, { create: true, write: true });
      await file.truncate(64 * 1024 * 1024);
      file.close();
      await must("--mode", "target", "--op", "new", "--tid", tid, "-T", name);
      await must(
        "--mode",
        "logicalunit",
        "--op",
        "new",
        "--tid",
        tid,
        "--lun",
        "1",
        "-b",
        disk,
        "--bstype",
        "rdwr",
      );
      await must("--mode", "target", "--op", "bind", "--tid", tid, "-I", "ALL");
    }
    await must(...account, "bind", "--tid", "2", "--user", "user1");
    await must(...account, "bind", "--tid", "3", "--user", "user1");
    await must(...account, "bind", "--tid", "3", "--user", "out1", "--outgoing");
    for (const key of ["HeaderDigest", "DataDigest"]) {
      await must("--mode", "target", "--op", "update", "--tid", "4", "-n", key, "-v", "CRC32C,None");
    }
    const [open, chap, mutual, digests] = names as [string, string, string, string];
    return { portal: { hostname: "127.0.0.1", port }, open, chap, mutual, digests, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}
