/** A volume as the members tell of it, for the device that shows it. */
export interface WantedDevice {
  readonly identifier: Uint8Array;
  /** Of the route table. */
  readonly epoch: number;
  readonly sizeBytes: number;
  readonly pageBytes: number;
  readonly writeCache: boolean;
  readonly writeProtected: boolean;
  readonly members: readonly WantedMember[];
  /** By page: the index of its member; 255: not known. */
  readonly homes: Uint8Array;
}

export interface WantedMember {
  readonly name: string;
  readonly up: boolean;
  /** Portals that the plan gives this host; several sessions with one portal are one here. */
  readonly portals: readonly string[];
  /** How many it has. */
  readonly pages: number;
}
