// What the kernel lets this process do beyond what every process may.

const bits = { CAP_NET_ADMIN: 12, CAP_NET_RAW: 13 } as const;

/** A sentence for each that is missing. */
export function missingCapabilities(): string[] {
  const capabilities = effectiveCapabilities();
  return Object.entries(bits).filter(([, bit]) => (capabilities & (1n << BigInt(bit))) === 0n).map(([name]) =>
    `The capability ${name} is missing: run as root, or give it in the unit (AmbientCapabilities=).`
  );
}

function effectiveCapabilities(): bigint {
  try {
    const status = Deno.readTextFileSync("/proc/self/status");
    return BigInt(`0x${/^CapEff:\s*([0-9a-f]+)$/m.exec(status)?.[1] ?? "0"}`);
  } catch {
    return 0n;
  }
}
