// The machine's clock for leases behind lib/base/clock.ts. Linux: CLOCK_BOOTTIME, and the boot id tells its zero. Where
// there is no such call, sysinfo(2) answers in whole seconds; where there is no boot id, the wall clock has to do.

import type { BootClock } from "../base/clock.ts";
import { bootTimeReader } from "./libc.ts";

let known: BootClock | undefined;

export function systemBootClock(): BootClock {
  return known ??= readClock();
}

function readClock(): BootClock {
  try {
    const era = Deno.readTextFileSync("/proc/sys/kernel/random/boot_id").trim();
    return { era, nowMs: bootTimeReader() ?? (() => Deno.osUptime() * 1000) };
  } catch {
    return { era: "wall", nowMs: () => Date.now() };
  }
}
