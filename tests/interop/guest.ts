// A Linux guest (../shared/linux-guest) as an initiator.

import { shared, succeed } from "./tools.ts";
import { iqnPrefix, type TargetProcess } from "./target_process.ts";

const cache = Deno.env.get("HARNESS_CACHE") ?? `${shared}/linux-guest/cache`;
/** What a guest needs to be started. */
export const guestNeeds: readonly string[] = [`${shared}/linux-guest/run-guest.sh`, `${cache}/READY`];

/**
 * The guest's kernel finds a CPU stuck in its idle task, in which it waits for an interrupt: QEMU's emulation has lost one.
 * Nothing that an initiator or target does comes into it. Seen once (.ci/run on 2026-11-28).
 */
const emulatorHung = /soft lockup - CPU#\d+ stuck for \d+s! \[swapper\//;

/** Runs a script in a Linux guest whose initiator is to use the volume at the first portal of the target; what it printed. */
export async function guest(
  target: TargetProcess,
  volume: string,
  script: string,
  environment: Record<string, string> = {},
  /** Called on the host by the guest's hostcall. */
  hook: string | null = null,
  /** Of the guest, 512 unless told; a snapshot is made the first time. */
  memoryMiB: number | null = null,
) {
  const [host, port] = target.portals[0].split(":");
  const run = () =>
    succeed(`${shared}/linux-guest/run-guest.sh`, [
      ...["-t", "240"],
      ...hook === null ? [] : ["-H", hook],
      ...memoryMiB === null ? [] : ["-m", String(memoryMiB)],
      ...Object.entries(environment).flatMap(([k, v]) => ["-e", `${k}=${v}`]),
      script,
    ], {
      env: { HARNESS_CACHE: cache, TGT_HOST: host!, TGT_PORT: port!, TGT_IQN: `${iqnPrefix}:${volume}` },
      secondsMax: 300,
    });
  try {
    return await run();
  } catch (error) {
    if (!emulatorHung.test((error as Error).message)) throw error;
    console.log("     the emulated machine stood still while it had nothing to do; once more");
    return await run();
  }
}
