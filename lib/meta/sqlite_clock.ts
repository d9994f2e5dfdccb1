// Time for leases that several processes of one machine agree on and that no change of the date disturbs.
// Linux: /proc/uptime is CLOCK_BOOTTIME (it counts while the machine sleeps), and the boot id tells its zero.
// Where /proc/uptime is not the kernel's own (lxcfs shows a container's age there), sysinfo(2) answers in whole
// seconds; where there is neither, the wall clock has to do.

export interface LeaseClock {
  /** Times of another era cannot be compared: a lease from another boot has ended. */
  readonly era: string;
  nowMs(): number;
}

export function leaseClock(): LeaseClock {
  try {
    const bootId = Deno.readTextFileSync("/proc/sys/kernel/random/boot_id").trim();
    const trustworthy = Math.abs(procUptimeMs() - Deno.osUptime() * 1000) <= 2_000;
    return { era: bootId, nowMs: trustworthy ? procUptimeMs : () => Deno.osUptime() * 1000 };
  } catch {
    return { era: "wall", nowMs: () => Date.now() };
  }
}

function procUptimeMs(): number {
  const seconds = Number(Deno.readTextFileSync("/proc/uptime").split(" ")[0]);
  if (!Number.isFinite(seconds)) throw new Error("/proc/uptime has no number");
  return Math.round(seconds * 1000);
}
