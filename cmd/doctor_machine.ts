// What doctor asks of the machine: Deno, clock, file descriptors, memory.

import { limits } from "../lib/base/limits.ts";
import { readTextIfThere } from "../lib/io/files.ts";
import type { Check } from "./doctor.ts";
import { formatBytes, formatCount } from "./quantity.ts";

/** The version the program is built and tested with. */
const denoTested = [2, 9] as const;

export function checkDenoVersion(version = Deno.version.deno): Check {
  const [major = 0, minor = 0] = version.split(".").map(Number);
  const name = "deno";
  if (major === denoTested[0] && minor === denoTested[1]) return { name, outcome: "ok", detail: version };
  const older = major < denoTested[0] || (major === denoTested[0] && minor < denoTested[1]);
  const detail = `${version}, tested with ${denoTested.join(".")}`;
  const advice = "Start it with: npx -y deno@2.9.6 task start (or use the packed executable).";
  return { name, outcome: older ? "fail" : "warn", detail, advice };
}

/** Released in November 2026: an earlier date is a clock that was never set. */
export function checkWallClock(nowMs = Date.now()): Check {
  const detail = new Date(nowMs).toISOString();
  if (nowMs >= Date.UTC(2026, 10, 1)) return { name: "clock", outcome: "ok", detail };
  const advice = "Set the clock (timedatectl set-ntp true): logs and records would carry wrong times.";
  return { name: "clock", outcome: "warn", detail, advice };
}

/** Connections, half-open logins, disks, metadata, and what the runtime takes itself. */
const descriptorsNeeded = limits.connectionsMax + limits.connectionsInLoginMax + 128;

export async function checkNofile(): Promise<Check> {
  const name = "open files";
  const text = await readTextIfThere("/proc/self/limits");
  const soft = /^Max open files\s+(\S+)/m.exec(text ?? "")?.[1];
  if (soft === undefined) {
    return { name, outcome: "warn", detail: "limit unknown", advice: "Check ulimit -n." };
  }
  const many = soft === "unlimited" ? Infinity : Number(soft);
  const detail = `${many === Infinity ? "unlimited" : formatCount(many)}, needed up to ${descriptorsNeeded}`;
  if (many >= descriptorsNeeded) return { name, outcome: "ok", detail };
  return {
    name,
    outcome: "warn",
    detail,
    advice: "Raise it: ulimit -n 65536, or LimitNOFILE=65536 in the unit.",
  };
}

/** Data buffers, and what the program takes beside them. */
const memoryNeededBytes = limits.dataBufferBytesMax + 256 * 1024 * 1024;

export async function checkMemory(): Promise<Check> {
  const name = "memory";
  const text = await readTextIfThere("/proc/meminfo");
  const kib = /^MemAvailable:\s+(\d+) kB/m.exec(text ?? "")?.[1];
  if (kib === undefined) {
    return { name, outcome: "warn", detail: "unknown", advice: "Check that some is free." };
  }
  const bytes = Number(kib) * 1024;
  const detail = `${formatBytes(bytes)} available, needed up to ${formatBytes(memoryNeededBytes)}`;
  if (bytes >= memoryNeededBytes) return { name, outcome: "ok", detail };
  return { name, outcome: "warn", detail, advice: "Free some, or give the machine more." };
}
