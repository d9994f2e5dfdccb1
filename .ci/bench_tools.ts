// What the runs of `deno task bench` share: the load generator of ../shared/bench, tgtd on a file, and the page cache.

import { PortableNetwork } from "../lib/io/portable_network.ts";
import { systemClock } from "../lib/io/system_clock.ts";
import { systemRandom } from "../lib/io/system_random.ts";
import { fillWithNoise } from "../lib/roles/bench/access.ts";
import { isUnitAttention } from "../lib/roles/bench/failure.ts";
import { type CommandResult, InitiatorClient } from "../lib/session/initiator/mod.ts";
import { shared, succeed } from "../tests/interop/tools.ts";
import { freePort, pause } from "../tests/interop/target_process.ts";

/** Volume, and what is read of files, MiB. */
export const sizeMiB = 1024;

export interface Served {
  readonly port: number;
  readonly iqn: string;
  readonly lun: number;
  /** The processes whose CPU time is the server's. */
  readonly pids: readonly number[];
}

export interface Load {
  readonly depth: number;
  readonly bytes: number;
  readonly mode: "randread" | "randwrite" | "seqread" | "seqwrite";
  readonly seconds: number;
  readonly warmUpSeconds: number;
  /** How much of the volume, from its beginning; absent: all of it. */
  readonly mebibytes?: number;
}

export interface Measured {
  readonly iops: number;
  readonly mbps: number;
  /** Microseconds, in steps of two. */
  readonly p50: number;
  readonly p99: number;
  /** Microseconds of the server's CPU time a command, warm-up included in both. */
  readonly cpuUs: number;
}

/** Compiles the load generator into `directory`; the program's path. */
export async function buildLoad(directory: string): Promise<string> {
  const program = `${directory}/load`;
  await succeed("gcc", ["-O2", "-w", "-o", program, `${shared}/bench/iscsi_load.c`], { secondsMax: 60 });
  return program;
}

/**
 * Runs one load on one connection; once more, and says so, when a command fails: the load generator knows no unit
 * attention, with which tgtd greets it. Throws when it fails again.
 */
export async function runLoad(program: string, target: Served, load: Load): Promise<Measured> {
  try {
    return await runOnce(program, target, load);
  } catch (error) {
    console.error(`${(error as Error).message.trim()} Once more.`);
    return await runOnce(program, target, load);
  }
}

async function runOnce(program: string, target: Served, load: Load): Promise<Measured> {
  const before = await cpuSeconds(target.pids);
  const output = await succeed(program, [
    ...[String(target.port), target.iqn, String(target.lun), "1", String(load.depth), String(load.bytes)],
    ...[load.mode, String(load.seconds), String(load.mebibytes ?? sizeMiB)],
  ], { secondsMax: 60, env: { LGWARM: String(load.warmUpSeconds) } });
  const cpu = await cpuSeconds(target.pids) - before;
  const told = JSON.parse(/\{.*\}/.exec(output)?.[0] ?? "null") as Omit<Measured, "cpuUs"> & {
    errs: number;
    ios: number;
    el: number;
  };
  if (told.errs > 0 || told.ios === 0) {
    throw new Error(`${target.iqn}: ${told.errs} of ${told.ios} commands failed. ${output}`);
  }
  const commands = told.ios * (told.el + load.warmUpSeconds) / told.el;
  return { iops: told.iops, mbps: told.mbps, p50: told.p50, p99: told.p99, cpuUs: cpu * 1e6 / commands };
}

/** User and system time of processes, all threads (proc(5), in ticks of 10 ms). */
export async function cpuSeconds(pids: readonly number[]): Promise<number> {
  let ticks = 0;
  for (const pid of pids) {
    const stat = await Deno.readTextFile(`/proc/${pid}/stat`);
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    ticks += Number(fields[11]) + Number(fields[12]);
  }
  return ticks / 100;
}

/** Writes every block of a volume, as noise. */
export async function fillVolume(target: Served): Promise<void> {
  const mebibyte = 1024 * 1024;
  const client = await InitiatorClient.connect(new PortableNetwork(), systemClock, systemRandom, {
    portal: { hostname: "127.0.0.1", port: target.port },
    initiatorName: "iqn.2026-11.net.plimsoll.bench:fill",
    targetName: target.iqn,
  });
  while ((await client.command([0, 0, 0, 0, 0, 0])).status !== 0); // unit attentions
  let next = 0;
  const lane = async () => {
    const data = new Uint8Array(mebibyte);
    while (next < sizeMiB) {
      const at = next++;
      fillWithNoise(data, at + 1);
      const cdb = new Uint8Array(16);
      const view = new DataView(cdb.buffer);
      cdb[0] = 0x8a; // WRITE(16)
      view.setUint32(6, at * mebibyte / 512);
      view.setUint32(10, mebibyte / 512);
      let result: CommandResult;
      do result = await client.command(cdb, { dataOut: data }); while (isUnitAttention(result));
      if (result.outcome !== "completed" || result.status !== 0) {
        throw new Error(`Cannot fill ${target.iqn}: ${result.outcome}, status ${result.status}.`);
      }
    }
  };
  await Promise.all([lane(), lane(), lane(), lane()]);
  const flushed = await client.command([0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
  if (flushed.status !== 0) throw new Error(`The flush after the fill failed: status ${flushed.status}.`);
  await client.logout();
}

/** Drops a file from the page cache; what is not written yet is written first. Throws when more than 1 % of it stays. */
export async function dropFromCache(path: string): Promise<void> {
  const script = "import os,sys; f=os.open(sys.argv[1],os.O_RDONLY); os.fdatasync(f); " +
    "os.posix_fadvise(f,0,0,os.POSIX_FADV_DONTNEED)";
  await succeed("python3", ["-c", script, path], { secondsMax: 60 });
  const left = await succeed("fincore", ["--bytes", "--noheadings", "--output", "RES", path], {
    secondsMax: 10,
  });
  const bytes = Number(left.trim());
  if (!(bytes <= sizeMiB * 1024 * 1024 / 100)) {
    throw new Error(`${bytes} bytes of "${path}" stay in the page cache: is it mapped by a process?`);
  }
}

/** What the disk itself gives: IOPS of fio by io_uring in place of a target. Null where it is not installed. */
export async function runFio(file: string, direct: boolean, load: Load): Promise<number | null> {
  const options = ["--name=disk", `--filename=${file}`, `--size=${sizeMiB}m`, "--readonly", "--time_based"];
  options.push(
    "--ioengine=io_uring",
    `--direct=${direct ? 1 : 0}`,
    `--rw=${load.mode}`,
    `--bs=${load.bytes}`,
  );
  options.push(`--iodepth=${load.depth}`, `--runtime=${load.seconds}`, `--ramp_time=${load.warmUpSeconds}`);
  try {
    const output = await succeed("fio", [...options, "--output-format=json"], { secondsMax: 60 });
    const told = JSON.parse(output.slice(output.indexOf("{"), output.lastIndexOf("}") + 1));
    return told.jobs[0].read.iops as number;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return null;
    throw error;
  }
}

/** tgtd on `file` as LUN 1. `direct`: O_DIRECT. Null where it is not installed. */
export async function startTgtd(
  directory: string,
  file: string,
  direct: boolean,
): Promise<(Served & AsyncDisposable) | null> {
  const port = freePort();
  const iqn = "iqn.2026-11.net.plimsoll.peer:tgtd";
  const control = String(port % 30_000);
  const env = { TGT_IPC_SOCKET: `${directory}/tgt.sock` };
  const admin = ["-C", control, "--lld", "iscsi"];
  const run = (...args: string[]) => succeed("tgtadm", [...admin, ...args], { secondsMax: 10, env });
  let child: Deno.ChildProcess;
  try {
    child = new Deno.Command("tgtd", {
      args: ["-f", "-C", control, "--iscsi", `portal=127.0.0.1:${port}`],
      env,
      stdin: "null",
      stdout: "null",
      stderr: "null",
    }).spawn();
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return null;
    throw error;
  }
  const stop = async () => {
    child.kill("SIGKILL"); // nothing of it is to be kept
    await child.status;
  };
  try {
    for (let tries = 0;; tries++) {
      const answers = await run("--mode", "sys", "--op", "show").then(() => true, () => false);
      if (answers) break;
      if (tries === 100) throw new Error("tgtd does not answer tgtadm");
      await pause(50);
    }
    await run("--mode", "target", "--op", "new", "--tid", "1", "-T", iqn);
    const unit = ["--mode", "logicalunit", "--op", "new", "--tid", "1", "--lun", "1", "-b", file];
    await run(...unit, "--bstype", "rdwr", ...(direct ? ["--bsoflags", "direct"] : []));
    await run("--mode", "target", "--op", "bind", "--tid", "1", "-I", "ALL");
  } catch (error) {
    await stop();
    throw error;
  }
  return { port, iqn, lun: 1, pids: [child.pid], [Symbol.asyncDispose]: stop };
}
