// What a member sees of the machine it runs on; lib/io/machine.ts asks Linux.

export interface Machine {
  /** Cores that the process may use. */
  readonly cores: number;
  /** Time that all threads of the process have run, milliseconds. */
  cpuMs(): number;
  /** Speed of the interface that has the address, Mbit/s; 0: not known. */
  linkMbps(hostname: string): number;
  /** That the interface has sent since the machine was started; 0: not known. */
  sentBytes(hostname: string): number;
  /** Length of the network prefix of the interface that has the address; null: not known. */
  prefixBits(hostname: string): number | null;
}

/** Of which nothing is known. */
export const unknownMachine: Machine = Object.freeze({
  cores: 1,
  cpuMs: () => 0,
  linkMbps: () => 0,
  sentBytes: () => 0,
  prefixBits: () => null,
});
