// The machine as Linux shows it in /proc and /sys. What cannot be read is not known: no part of the service hangs on it.

import type { Machine } from "../base/machine.ts";

/** Interfaces come and go seldom. */
const keptMs = 30_000;
/** USER_HZ, which is 100 on every architecture that Deno runs on. */
const ticksPerS = 100;

export function systemMachine(nowMs: () => number): Machine {
  let interfaces: Deno.NetworkInterfaceInfo[] = [];
  const speeds = new Map<string, number>();
  let readMs = -Infinity;
  const interfaceOf = (hostname: string) => {
    if (nowMs() - readMs > keptMs) {
      readMs = nowMs();
      speeds.clear();
      interfaces = attempt(() => Deno.networkInterfaces(), []);
    }
    return interfaces.find(({ address }) => address === hostname.split("%")[0]) ?? null;
  };
  return {
    cores: navigator.hardwareConcurrency,
    cpuMs: () => attempt(() => cpuMsOf(Deno.readTextFileSync("/proc/self/stat")), 0),
    linkMbps(hostname) {
      const name = interfaceOf(hostname)?.name;
      if (name === undefined) return 0;
      let speed = speeds.get(name);
      if (speed === undefined) {
        // EINVAL for loopback and interfaces that are down, -1 for virtual ones
        const text = attempt(() => Deno.readTextFileSync(`/sys/class/net/${name}/speed`), "");
        speed = Math.max(0, Math.trunc(Number(text)) || 0);
        speeds.set(name, speed);
      }
      return speed;
    },
    sentBytes(hostname) {
      const name = interfaceOf(hostname)?.name;
      if (name === undefined) return 0;
      const path = `/sys/class/net/${name}/statistics/tx_bytes`;
      return Number(attempt(() => Deno.readTextFileSync(path), "0"));
    },
    prefixBits(hostname) {
      const cidr = interfaceOf(hostname)?.cidr;
      return cidr === undefined || cidr === null ? null : Number(cidr.split("/")[1]);
    },
  };
}

/** utime and stime; the name in brackets may hold blanks and brackets (proc(5)). */
export function cpuMsOf(stat: string): number {
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) * 1000 / ticksPerS;
}

function attempt<T>(read: () => T, otherwise: T): T {
  try {
    return read();
  } catch {
    return otherwise;
  }
}
