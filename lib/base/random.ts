// Randomness as a thing that is handed in: secrets and identifiers in production, a seed in the simulator.

export interface RandomSource {
  /** Fills `bytes` with random bytes; cryptographically strong in production. */
  fill(bytes: Uint8Array): void;
}
